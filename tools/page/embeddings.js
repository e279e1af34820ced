// ------------------------------------------- chapter 3: vectors for tokens, positions
// A tensor is a Float32Array with its rows one after another: (T, D) has T * D numbers.

/** A table with one row per token: ids (T) -> vectors (T, D). */
class TokenEmbedding {
  constructor(weight, d_model) {
    this.weight = weight; // (V, D)
    this.d_model = d_model;
  }

  forward(ids) {
    const D = this.d_model;
    const x = new Float32Array(ids.length * D); // (T, D)
    ids.forEach((id, t) => x.set(this.weight.subarray(id * D, (id + 1) * D), t * D));
    return x;
  }
}

/** Fixed vectors of sines and cosines: (T, D), times `scale`. */
function sinusoidal_positions(context_length, d_model, scale) {
  const table = new Float32Array(context_length * d_model);
  for (let t = 0; t < context_length; t++) {
    for (let i = 0; i < d_model; i += 2) {
      const angle = t * 10_000 ** (-i / d_model);
      table[t * d_model + i] = scale * Math.sin(angle);
      table[t * d_model + i + 1] = scale * Math.cos(angle);
    }
  }
  return table;
}

/** Rotary positions: turn each pair of features of one vector (d) by its position. */
function rotate(x, position, base) {
  for (let i = 0; i < x.length; i += 2) {
    const angle = position * base ** (-i / x.length);
    const [even, odd] = [x[i], x[i + 1]];
    x[i] = even * Math.cos(angle) - odd * Math.sin(angle);
    x[i + 1] = even * Math.sin(angle) + odd * Math.cos(angle);
  }
}
