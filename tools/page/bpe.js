// ---------------------------------------------------------------- chapter 2: tokens
// Bytes are held in strings, one character for each byte, as latin-1 would decode them.

const to_bytes = text => String.fromCharCode(...new TextEncoder().encode(text));

/** The numbers in such a string. */
function from_bytes(bytes) {
  const numbers = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) numbers[i] = bytes.charCodeAt(i);
  return numbers;
}

/** A pattern of Python's `regex` for JavaScript, whose \s means other characters.
 * It finds what `pattern` matches and, in one piece each, the gaps. */
function compile_pattern(pattern) {
  pattern = pattern
    .replaceAll("\\s", "\\p{White_Space}")
    .replaceAll("\\S", "\\P{White_Space}");
  return new RegExp(`${pattern}|(?:(?!${pattern})[^])+`, "gu");
}

/** Pre-tokens: `text` cut by the first pattern, its pieces by the second, ... */
function pretokenize(text, patterns) {
  let pieces = [text];
  for (const pattern of patterns) {
    pieces = pieces.flatMap(piece => piece.match(pattern) ?? []);
  }
  return pieces;
}

const pair_of = (left, right) => left + "\u0100" + right; // no byte is \u0100

/** A pre-token's tokens: join the pair of lowest rank, leftmost first, to the end. */
function merge_word(word, ranks) {
  const rank = i => ranks.get(pair_of(tokens[i], tokens[i + 1])) ?? Infinity;
  const tokens = [...word];
  const found = tokens.slice(1).map((_, i) => rank(i));
  while (found.length) {
    let best = 0;
    for (let i = 1; i < found.length; i++) {
      if (found[i] < found[best]) best = i;
    }
    if (found[best] === Infinity) break;
    tokens[best] += tokens[best + 1];
    tokens.splice(best + 1, 1);
    found.splice(best, 1);
    if (best > 0) found[best - 1] = rank(best - 1);
    if (best < found.length) found[best] = rank(best);
  }
  return tokens;
}

/** Text to token ids and back, by merges in the order they were learned. */
class BPETokenizer {
  constructor({ vocab, merges, patterns, special_tokens, ignore_merges }) {
    this.vocab = new Map(Object.entries(vocab).map(([i, token]) => [Number(i), token]));
    this.special_tokens = special_tokens; // name -> id
    this.n_vocab = Math.max(...this.vocab.keys()) + 1;
    this.patterns = patterns.map(compile_pattern);
    this.ranks = new Map(merges.map(([a, b], rank) => [pair_of(a, b), rank]));
    this.id_of = new Map([...this.vocab].map(([i, token]) => [token, i]));
    this.whole = new Set(ignore_merges ? this.id_of.keys() : []);
    for (const id of Object.values(special_tokens)) {
      this.whole.delete(this.vocab.get(id));
    }
  }

  /** Ids of one pre-token: one if it is taken whole, or what the merges make. */
  encode_bytes(data) {
    const tokens = this.whole.has(data) ? [data] : merge_word(data, this.ranks);
    return tokens.map(token => this.id_of.get(token));
  }

  /** Ids of `text`, in which the name of a special token is ordinary text. */
  encode_ordinary(text) {
    const pieces = pretokenize(text.toWellFormed(), this.patterns);
    return pieces.flatMap(piece => this.encode_bytes(to_bytes(piece)));
  }

  decode_bytes(ids) {
    return from_bytes(ids.map(i => this.vocab.get(i) ?? "").join(""));
  }

  /** The text of `ids`; what is no UTF-8 becomes U+FFFD. With `stream`, the beginning
   * of a character at the end waits for its other bytes. */
  decode(ids, stream = false) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return decoder.decode(this.decode_bytes(ids), { stream });
  }
}
