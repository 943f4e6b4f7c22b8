import type { View } from "./bytes.ts";

/** Firmware is some MiB unpacked; a header that says more would only cost time and memory. */
const largestUnpacked = 256 << 20;

const kBits = 11;
const half = 1 << (kBits - 1);
const top = 0x1000000;

/**
 * Unpacks an "LZMA alone" stream (Igor Pavlov's LZMA specification): a properties byte, u32 dictionary size, u64 unpacked
 * size (which must be known), then the range-coded data. Throws a FormatError where the data is no such stream.
 */
export function unpackLzma(view: View, start: number): Uint8Array {
  const properties = view.u8(start, "LZMA properties");
  if (properties >= 9 * 5 * 5) view.fail(start, `LZMA properties are ${properties}, expected less than 225`);
  const size = view.u64(start + 5, "LZMA unpacked size");
  if (size > BigInt(largestUnpacked)) view.fail(start + 5, `LZMA data of ${size} bytes is more than any firmware has`);
  const lc = properties % 9;
  const lp = Math.floor(properties / 9) % 5;
  const pb = Math.floor(properties / 45);
  return new Decoder(view, start + 13).unpack({ lc, lp, pb }, Number(size));
}

const probabilities = (count: number) => new Uint16Array(count).fill(half);

/** Lengths of matches, 2 to 273 bytes. */
class LengthCoder {
  readonly choice = probabilities(2);
  readonly low = probabilities(16 << 3);
  readonly mid = probabilities(16 << 3);
  readonly high = probabilities(256);
}

class Decoder {
  readonly #view: View;
  readonly #bytes: Uint8Array;
  #at: number;
  #range = 0xffffffff;
  #code = 0;

  constructor(view: View, start: number) {
    view.need(start, 5, "LZMA data");
    this.#view = view;
    this.#bytes = view.bytes;
    if (view.u8(start, "LZMA data") !== 0) view.fail(start, "LZMA data does not start with a zero byte");
    this.#code = new DataView(view.bytes.buffer, view.bytes.byteOffset).getUint32(start + 1);
    this.#at = start + 5;
  }

  unpack({ lc, lp, pb }: { lc: number; lp: number; pb: number }, size: number): Uint8Array {
    const out = new Uint8Array(size);
    const isMatch = probabilities(12 << 4);
    const isRep = probabilities(12);
    const isRepG0 = probabilities(12);
    const isRepG1 = probabilities(12);
    const isRepG2 = probabilities(12);
    const isRep0Long = probabilities(12 << 4);
    const slots = [0, 1, 2, 3].map(() => probabilities(64));
    const align = probabilities(16);
    const special = probabilities(128);
    const literals = probabilities(0x300 << (lc + lp));
    const lengths = new LengthCoder();
    const repeatedLengths = new LengthCoder();
    let [rep0, rep1, rep2, rep3] = [0, 0, 0, 0];
    let state = 0;
    let at = 0;
    while (at < size) {
      const posState = at & ((1 << pb) - 1);
      if (this.#bit(isMatch, (state << 4) + posState) === 0) {
        const before = at === 0 ? 0 : (out[at - 1] ?? 0);
        const base = 0x300 * (((at & ((1 << lp) - 1)) << lc) + (before >> (8 - lc)));
        out[at] = this.#literal(literals, base, state >= 7 ? (out[at - rep0 - 1] ?? 0) : undefined);
        at += 1;
        state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
        continue;
      }
      let length = 1;
      if (this.#bit(isRep, state) === 0) {
        [rep3, rep2, rep1] = [rep2, rep1, rep0];
        length = this.#length(lengths, posState);
        rep0 = this.#distance(slots[Math.min(length - 2, 3)] ?? align, special, align);
        state = state < 7 ? 7 : 10;
      } else {
        let short = false;
        if (this.#bit(isRepG0, state) === 0) {
          short = this.#bit(isRep0Long, (state << 4) + posState) === 0;
        } else if (this.#bit(isRepG1, state) === 0) {
          [rep0, rep1] = [rep1, rep0];
        } else if (this.#bit(isRepG2, state) === 0) {
          [rep0, rep1, rep2] = [rep2, rep0, rep1];
        } else {
          [rep0, rep1, rep2, rep3] = [rep3, rep0, rep1, rep2];
        }
        if (!short) length = this.#length(repeatedLengths, posState);
        state = short ? (state < 7 ? 9 : 11) : state < 7 ? 8 : 11;
      }
      if (rep0 >= at || at + length > size)
        this.#view.fail(this.#at, "LZMA data refers to bytes that it does not have");
      for (const end = at + length; at < end; at += 1) out[at] = out[at - rep0 - 1] ?? 0;
    }
    return out;
  }

  #bit(models: Uint16Array, index: number): number {
    const model = models[index] ?? half;
    const bound = (this.#range >>> kBits) * model;
    if (this.#code < bound) {
      this.#range = bound;
      models[index] = model + (((1 << kBits) - model) >> 5);
      this.#normalize();
      return 0;
    }
    this.#range -= bound;
    this.#code -= bound;
    models[index] = model - (model >> 5);
    this.#normalize();
    return 1;
  }

  #normalize(): void {
    if (this.#range >= top) return;
    this.#range = (this.#range << 8) >>> 0;
    const next = this.#bytes[this.#at];
    if (next === undefined) this.#view.fail(this.#at, "LZMA data ends too early");
    this.#code = ((this.#code << 8) | next) >>> 0;
    this.#at += 1;
  }

  #tree(models: Uint16Array, base: number, bits: number): number {
    let node = 1;
    for (let bit = 0; bit < bits; bit += 1) node = (node << 1) | this.#bit(models, base + node);
    return node - (1 << bits);
  }

  /** As `#tree`, lowest bit first. */
  #reverseTree(models: Uint16Array, base: number, bits: number): number {
    let [node, value] = [1, 0];
    for (let bit = 0; bit < bits; bit += 1) {
      const next = this.#bit(models, base + node);
      node = (node << 1) | next;
      value |= next << bit;
    }
    return value;
  }

  /** After a match, the byte that the match would have continued with is part of the model. */
  #literal(models: Uint16Array, base: number, matched: number | undefined): number {
    let symbol = 1;
    let differs = matched === undefined;
    for (let shift = 7; shift >= 0; shift -= 1) {
      const expected = ((matched ?? 0) >> shift) & 1;
      const bit = this.#bit(models, base + (differs ? 0 : (1 + expected) << 8) + symbol);
      symbol = (symbol << 1) | bit;
      differs ||= bit !== expected;
    }
    return symbol & 0xff;
  }

  #length(coder: LengthCoder, posState: number): number {
    if (this.#bit(coder.choice, 0) === 0) return 2 + this.#tree(coder.low, posState << 3, 3);
    if (this.#bit(coder.choice, 1) === 0) return 10 + this.#tree(coder.mid, posState << 3, 3);
    return 18 + this.#tree(coder.high, 0, 8);
  }

  #distance(slots: Uint16Array, special: Uint16Array, align: Uint16Array): number {
    const slot = this.#tree(slots, 0, 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1;
    const base = (2 | (slot & 1)) * 2 ** bits;
    if (slot < 14) return base + this.#reverseTree(special, base - slot, bits);
    return base + this.#direct(bits - 4) * 16 + this.#reverseTree(align, 0, 4);
  }

  #direct(bits: number): number {
    let value = 0;
    for (let bit = 0; bit < bits; bit += 1) {
      this.#range >>>= 1;
      const set = this.#code >= this.#range;
      if (set) this.#code -= this.#range;
      value = value * 2 + (set ? 1 : 0);
      this.#normalize();
    }
    return value;
  }
}
