// ------------------------------------------------------ chapter 7: from model to text

/** What every layer remembers of the text so far, so that it is read only once. */
class KVCache {
  constructor(config) {
    this.layers = Array.from({ length: config.n_layers }, () => new LayerCache(config));
    this.length = 0; // how many positions are stored
  }
}

function scaled_to_1(probs) {
  const total = probs.reduce((sum, p) => sum + p, 0);
  return probs.map(p => p / total);
}

/** The k likeliest of (V), scaled to sum to 1; elsewhere 0. */
function keep_top_k(probs, k) {
  const kth = probs.toSorted()[Math.max(0, probs.length - k)];
  return scaled_to_1(probs.map(p => (p < kth ? 0 : p)));
}

/** The fewest of (V) that together reach p, scaled to sum to 1; elsewhere 0. */
function keep_top_p(probs, p) {
  if (p >= 1) return probs;
  const order = [...probs.keys()].sort((i, j) => probs[i] - probs[j]); // likeliest last
  const kept = probs.slice();
  let upto = 0; // the sum of it and all that are less likely
  for (const i of order.slice(0, -1)) {
    upto += probs[i];
    if (upto > 1 - p) break;
    kept[i] = 0;
  }
  return scaled_to_1(kept);
}

/** Those of (V) that reach `share` times the likeliest, scaled to sum to 1; else 0. */
function keep_min_p(probs, share) {
  const least = share * highest(probs);
  return scaled_to_1(probs.map(p => (p < least ? 0 : p)));
}

/** Logits (V) -> the probabilities (V) to draw the next token from. */
function next_token_distribution(logits, settings = {}) {
  const { temperature = 1, top_k, top_p, min_p } = settings;
  let probs;
  if (temperature === 0) {
    probs = new Float64Array(logits.length);
    probs[logits.indexOf(highest(logits))] = 1;
  } else {
    const best = highest(logits);
    probs = softmax(Float64Array.from(logits).map(x => (x - best) / temperature));
  }
  if (top_k) probs = keep_top_k(probs, top_k);
  if (top_p) probs = keep_top_p(probs, top_p);
  if (min_p) probs = keep_min_p(probs, min_p);
  return probs;
}

/** The token on whose stretch of a stick, as long as its probability, `point` falls. */
function draw(probs, point) {
  const length = probs.reduce((sum, p) => sum + p, 0);
  let edge = 0; // the right end of the stretch
  let last = 0;
  for (let i = 0; i < probs.length; i++) {
    edge += probs[i];
    if (probs[i] > 0) last = i;
    if (edge > point * length) return i;
  }
  return last;
}

/** The random numbers of torch.Generator().manual_seed(seed): the Mersenne Twister. */
class Generator {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const before = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, before) + i;
    }
    this.next = 624;
  }

  /** 32 random bits. */
  bits() {
    const s = this.state;
    if (this.next === 624) {
      for (let i = 0; i < 624; i++) {
        const mixed = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
        s[i] = s[(i + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
      }
      this.next = 0;
    }
    let bits = s[this.next++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  /** A uniform number from 0 up to but not 1, with 53 random bits. */
  uniform() {
    const high = this.bits() & 0x1fffff;
    return (high * 2 ** 32 + this.bits()) / 2 ** 53;
  }
}

/** Where the part of a text begins that the model sees when it continues it. A text
 * that outgrows the context loses its oldest half context at once, so that a cache
 * serves for the next half context instead of moving at every token. */
function window_start(length, context_length) {
  const half = Math.max(1, Math.floor(context_length / 2));
  return Math.max(0, Math.ceil((length - context_length) / half) * half);
}

/** Let the browser do what waits: draw, answer a key. */
const pause = () => new Promise(done => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done(channel.port1.close());
  channel.port2.postMessage(null);
});

/** A text that grows or is edited, and what the model has read of it. */
class Reader {
  constructor(model) {
    this.model = model;
    this.cache = new KVCache(model.config);
    this.seen = []; // the ids whose keys and values the cache holds
    this.start = 0; // where in the text the model begins to read
    this.turn = 0;
  }

  /** The logits after these ids, (V). Only tokens that the cache does not hold are
   * read, 16 at a time. Null if another call came in between: then that one counts. */
  async read(ids) {
    const turn = ++this.turn;
    this.start = window_start(ids.length, this.model.config.context_length);
    const window = ids.slice(this.start);
    let same = 0; // so many tokens at the front the cache holds already
    while (same < window.length - 1 && this.seen[same] === window[same]) same++;
    this.cache.length = same;
    let logits = null;
    while (this.cache.length < window.length) {
      const end = this.cache.length + 16;
      const some = window.slice(this.cache.length, end);
      logits = this.model.forward(some, this.cache, true); // (V)
      this.seen = window.slice(0, this.cache.length);
      if (end < window.length) await pause();
      if (turn !== this.turn) return null;
    }
    return logits;
  }
}

/** Yield the continuation of a prompt as its tokens are drawn: the ids that
 * solutions.generation.stream gives with the same seed and settings. */
async function* stream(model, ids, max_new_tokens, options) {
  const { stop_ids = [], n_vocab, generator, ...settings } = options;
  const reader = new Reader(model);
  ids = [...ids];
  for (let i = 0; i < max_new_tokens; i++) {
    const logits = (await reader.read(ids)).subarray(0, n_vocab);
    const probs = next_token_distribution(logits, settings);
    const token = draw(probs, settings.temperature === 0 ? 0 : generator.uniform());
    if (stop_ids.includes(token)) return;
    yield token;
    ids.push(token);
  }
}
