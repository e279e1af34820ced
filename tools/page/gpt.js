// ---------------------------------------------------------------- chapter 5: the GPT

/** Bring each vector to mean 0 and variance 1, then scale and shift:
 * (T, D) -> (T, D). */
class LayerNorm {
  constructor(weight, bias, eps) {
    this.weight = weight;
    this.bias = bias;
    this.eps = eps;
  }

  forward(x) {
    const y = new Float32Array(x.length);
    const n = this.weight.length;
    for (let start = 0; start < x.length; start += n) {
      let mean = 0;
      for (let i = 0; i < n; i++) mean += x[start + i] / n;
      let variance = 0;
      for (let i = 0; i < n; i++) variance += (x[start + i] - mean) ** 2 / n;
      const scale = 1 / Math.sqrt(variance + this.eps);
      for (let i = 0; i < n; i++) {
        y[start + i] = (x[start + i] - mean) * scale * this.weight[i];
        if (this.bias) y[start + i] += this.bias[i];
      }
    }
    return y;
  }
}

function new_norm(config, part) {
  const weight = part.tensor("weight");
  if (config.norm === "rms") return new RMSNorm(weight, config.norm_eps);
  return new LayerNorm(weight, part.tensor("bias"), config.norm_eps);
}

const ACTIVATIONS = {
  gelu: x => {
    const inner = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
    return 0.5 * x * (1 + Math.tanh(inner));
  },
  relu2: x => Math.max(x, 0) ** 2,
  silu: x => x / (1 + Math.exp(-x)),
};

/** Each position by itself: (T, D) -> (T, d_mlp) -> activation -> (T, D). */
class FeedForward {
  constructor(config, part) {
    this.config = config;
    this.up = part.linear("up");
    this.down = part.linear("down");
    if (config.mlp === "swiglu") this.gate = part.linear("gate");
  }

  forward(x) {
    const { d_model, mlp_width, mlp } = this.config;
    let hidden = linear(x, this.up, d_model); // (T, d_mlp)
    if (mlp === "swiglu") {
      const gate = linear(x, this.gate, d_model).map(ACTIVATIONS.silu);
      hidden = hidden.map((value, i) => gate[i] * value);
    } else {
      hidden = hidden.map(ACTIVATIONS[mlp]);
    }
    return linear(hidden, this.down, mlp_width); // (T, D)
  }
}

/** Attention, then feed-forward; each reads a normalized copy of the residual stream
 * and adds to it: (T, D) -> (T, D). */
class Block {
  constructor(config, part) {
    this.norm1 = new_norm(config, part.part("norm1"));
    this.attention = new CausalSelfAttention(config, part.part("attention"));
    this.norm2 = new_norm(config, part.part("norm2"));
    this.feed_forward = new FeedForward(config, part.part("feed_forward"));
  }

  forward(x, cache, start) {
    const y = this.attention.forward(this.norm1.forward(x), cache, start);
    x = x.map((value, i) => value + y[i]); // (T, D)
    const z = this.feed_forward.forward(this.norm2.forward(x));
    return x.map((value, i) => value + z[i]); // (T, D)
  }
}

/** ids (T) -> logits (T, V): a score for each next token, at every position. */
class GPT {
  constructor(config, weights) {
    const part = new Part(weights);
    this.config = config;
    this.tokens = new TokenEmbedding(part.tensor("tokens.weight"), config.d_model);
    this.positions = this.position_table(part); // (T_max, D), or null
    this.blocks = Array.from({ length: config.n_layers }, (_, i) =>
      new Block(config, part.part(`blocks.${i}`)));
    this.norm = new_norm(config, part.part("norm"));
    const tied = config.tie_embeddings;
    this.head = tied ? { weight: this.tokens.weight } : part.linear("head");
    this.n_parameters = [...weights.values()].reduce((sum, w) => sum + w.length, 0);
  }

  /** The vectors to add for the positions, if they are added. */
  position_table(part) {
    const { positions, context_length, d_model } = this.config;
    if (positions === "learned") return part.tensor("positions.weight");
    if (positions !== "sinusoidal") return null;
    return sinusoidal_positions(context_length, d_model, 0.02 * Math.SQRT2);
  }

  /** cache: memory of earlier calls; `ids` are the tokens after them.
   * last_only: the scores after the last token alone, (V). */
  forward(ids, cache, last_only = false) {
    const D = this.config.d_model;
    const start = cache.length;
    let x = this.tokens.forward(ids); // (T, D)
    if (this.positions) {
      x = x.map((value, i) => value + this.positions[start * D + i]); // (T, D)
    }
    this.blocks.forEach((block, i) => {
      x = block.forward(x, cache.layers[i], start); // (T, D)
    });
    cache.length = start + ids.length;
    if (last_only) x = x.subarray(-D); // (D)
    return linear(this.norm.forward(x), this.head, D); // (T, V)
  }
}
