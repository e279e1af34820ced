// -------------------------------------------------------------- chapter 4: attention

/** x W^T + b: (T, n) -> (T, m), for a weight (m, n).
 * Nearly all the time goes here. Four outputs at once read each x only once, and their
 * four sums do not wait for each other; that doubles the speed. */
function linear(x, { weight, bias }, n) {
  const T = x.length / n;
  const m = weight.length / n;
  const y = new Float32Array(T * m); // (T, m)
  const last = m - (m % 4);
  for (let t = 0; t < T; t++) {
    const [from, to] = [t * n, t * m];
    for (let i = 0; i < last; i += 4) {
      const w0 = i * n - from;
      const w1 = w0 + n, w2 = w1 + n, w3 = w2 + n;
      let y0 = 0, y1 = 0, y2 = 0, y3 = 0;
      for (let j = from; j < from + n; j++) {
        const value = x[j];
        y0 += weight[w0 + j] * value;
        y1 += weight[w1 + j] * value;
        y2 += weight[w2 + j] * value;
        y3 += weight[w3 + j] * value;
      }
      y[to + i] = y0;
      y[to + i + 1] = y1;
      y[to + i + 2] = y2;
      y[to + i + 3] = y3;
    }
    for (let i = last; i < m; i++) {
      for (let j = 0; j < n; j++) y[to + i] += weight[i * n + j] * x[from + j];
    }
    if (bias) for (let i = 0; i < m; i++) y[to + i] += bias[i];
  }
  return y;
}

function highest(numbers) {
  let best = -Infinity;
  for (let i = 0; i < numbers.length; i++) best = Math.max(best, numbers[i]);
  return best;
}

/** Scores (S) -> weights (S) that sum to 1. */
function softmax(scores) {
  const best = highest(scores);
  const weights = scores.map(score => Math.exp(score - best));
  let total = 0;
  for (const weight of weights) total += weight;
  return weights.map(weight => weight / total);
}

/** How much a query (d) looks at each of S keys (S, d): softmax(q k^T / sqrt(d)). */
function attention_weights(q, k) {
  const d = q.length;
  const scores = new Float32Array(k.length / d); // (S)
  for (let s = 0; s < scores.length; s++) {
    let dot = 0;
    for (let j = 0; j < d; j++) dot += q[j] * k[s * d + j];
    scores[s] = dot / Math.sqrt(d);
  }
  return softmax(scores);
}

/** The weighted average of values: q (d), k and v (S, d) -> (d). */
function attention(q, k, v) {
  const weights = attention_weights(q, k); // (S)
  const y = new Float32Array(q.length);
  for (let s = 0; s < weights.length; s++) {
    for (let j = 0; j < y.length; j++) y[j] += weights[s] * v[s * y.length + j];
  }
  return y;
}

/** x / sqrt(mean(x^2) + eps), times a learned scale: (..., n) -> (..., n). */
class RMSNorm {
  constructor(weight, eps) {
    this.weight = weight;
    this.eps = eps;
  }

  forward(x) {
    const y = new Float32Array(x.length);
    const n = this.weight.length;
    for (let start = 0; start < x.length; start += n) {
      let squares = 0;
      for (let i = 0; i < n; i++) squares += x[start + i] ** 2;
      const scale = 1 / Math.sqrt(squares / n + this.eps);
      for (let i = 0; i < n; i++) y[start + i] = x[start + i] * scale * this.weight[i];
    }
    return y;
  }
}

/** The keys and values that one layer has computed so far: (H_kv, S, d) each.
 * The queries, (H, S, d), are not needed to go on. They are kept to be drawn. */
class LayerCache {
  constructor(config) {
    const { n_heads, kv_heads, head_width, context_length } = config;
    this.head_width = head_width;
    this.room = context_length * head_width; // of one head
    this.queries = new Float32Array(n_heads * this.room);
    this.keys = new Float32Array(kv_heads * this.room);
    this.values = new Float32Array(kv_heads * this.room);
  }

  store(memory, head, position, vector) {
    memory.set(vector, head * this.room + position * this.head_width);
  }

  /** What a head holds of positions `start` to `end`, without a copy. */
  read(memory, head, start, end) {
    const first = head * this.room;
    return memory.subarray(
      first + start * this.head_width, first + end * this.head_width,
    );
  }
}

/** Multi-head causal self-attention: (T, D) -> (T, D). */
class CausalSelfAttention {
  constructor(config, part) {
    this.config = config;
    this.qkv = part.linear("qkv");
    this.out = part.linear("out");
    if (config.qk_norm) {
      this.q_norm = new RMSNorm(part.tensor("q_norm.weight"), config.norm_eps);
      this.k_norm = new RMSNorm(part.tensor("k_norm.weight"), config.norm_eps);
    }
  }

  /** cache: the keys and values of the `start` tokens before x, to be extended. */
  forward(x, cache, start) {
    const { d_model, n_heads, kv_heads, head_width: d } = this.config;
    const heads = linear(x, this.qkv, d_model); // (T, (H + 2 H_kv) d)
    const T = x.length / d_model;
    const y = new Float32Array(T * n_heads * d); // (T, H d)
    for (let t = 0; t < T; t++) {
      const position = start + t;
      this.remember(heads.subarray((t * heads.length) / T), cache, position);
      for (let h = 0; h < n_heads; h++) {
        const group = Math.floor((h * kv_heads) / n_heads); // whose keys h shares
        const q = cache.read(cache.queries, h, position, position + 1); // (d)
        const k = cache.read(cache.keys, group, 0, position + 1); // (S, d)
        const v = cache.read(cache.values, group, 0, position + 1); // (S, d)
        y.set(attention(q, k, v), (t * n_heads + h) * d); // no token after it: causal
      }
    }
    return linear(y, this.out, n_heads * d); // (T, D)
  }

  /** Store the queries, keys and values of one token, given one after another. */
  remember(heads, cache, position) {
    const { n_heads, kv_heads, head_width: d, positions, rope_base } = this.config;
    for (let i = 0; i < n_heads + 2 * kv_heads; i++) {
      let vector = heads.subarray(i * d, (i + 1) * d); // (d)
      if (i >= n_heads + kv_heads) {
        cache.store(cache.values, i - n_heads - kv_heads, position, vector);
        continue;
      }
      const is_query = i < n_heads;
      const norm = is_query ? this.q_norm : this.k_norm;
      if (norm) vector = norm.forward(vector);
      if (positions === "rotary") rotate(vector, position, rope_base);
      if (is_query) cache.store(cache.queries, i, position, vector);
      else cache.store(cache.keys, i - n_heads, position, vector);
    }
  }

  /** The attention of every token so far to itself and those before it, for a drawing.
   * A list of T rows for each head; row t has t + 1 weights. */
  pattern(cache, T) {
    const { n_heads, kv_heads } = this.config;
    return Array.from({ length: n_heads }, (_, h) => {
      const group = Math.floor((h * kv_heads) / n_heads);
      return Array.from({ length: T }, (_, t) => attention_weights(
        cache.read(cache.queries, h, t, t + 1), cache.read(cache.keys, group, 0, t + 1),
      ));
    });
  }
}
