// ------------------------------------------------ the weights, and how they are named

/** The tensors of a safetensors file by name, each as a Float32Array.
 * 8 bytes say how long the header is; the header, JSON, says where each tensor lies. */
function read_safetensors(bytes) {
  const n = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + n)));
  const tensors = new Map();
  for (const [name, { dtype, data_offsets }] of Object.entries(header)) {
    const [start, end] = data_offsets.map(offset => 8 + n + offset);
    const data = bytes.slice(start, end).buffer;
    const is_float32 = dtype === "F32";
    tensors.set(name, is_float32 ? new Float32Array(data) : from_bfloat16(data));
  }
  return tensors;
}

/** A bfloat16 number is the first half of a float32; the other half is zeros. */
function from_bfloat16(data) {
  const wide = new Uint32Array(new Uint16Array(data)).map(half => half << 16);
  return new Float32Array(wide.buffer);
}

/** The weights below a name, such as "blocks.3.attention". */
class Part {
  constructor(weights, prefix = "") {
    this.weights = weights;
    this.prefix = prefix;
  }

  part(name) {
    return new Part(this.weights, `${this.prefix}${name}.`);
  }

  tensor(name) {
    return this.weights.get(this.prefix + name);
  }

  linear(name) {
    return { weight: this.tensor(`${name}.weight`), bias: this.tensor(`${name}.bias`) };
  }
}
