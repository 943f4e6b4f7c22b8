/** Readers of options' values. What they throw becomes "option … argument … is invalid" and the sentence. */
import { InvalidArgumentError } from "@commander-js/extra-typings";
import { type SnpTcb, snpProducts, snpTcbParts } from "../../measure/host-values.ts";
import { blockSizes, isBlockSize } from "../../measure/verity.ts";

export function wholeNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It must be a whole number.");
}

/** Decimal or 0x-prefixed. */
export function number(text: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError("It must be a number such as 4 or 0x4.");
}

export const between =
  (least: number, most: number) =>
  (text: string): number => {
    const value = number(text);
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be from ${least} to ${most}.`);
  };

/** Of dm-verity. */
export function blockSize(text: string): number {
  const size = number(text);
  if (isBlockSize(size)) return size;
  throw new InvalidArgumentError(`It must be ${blockSizes}.`);
}

/** Of exactly so many hex digits. */
export const hexDigits =
  (length: number) =>
  (text: string): string => {
    if (text.length === length && /^[0-9a-f]+$/i.test(text)) return text.toLowerCase();
    throw new InvalidArgumentError(`It must be ${length} hex digits.`);
  };

/** "https://host:port/repository", the scheme optional. */
export function repository(text: string): { registry: string; repository: string } {
  const [, registry, repository] = /^((?:https?:\/\/)?[^/]+)\/([^@:]+)$/.exec(text) ?? [];
  if (registry && repository) return { registry, repository };
  throw new InvalidArgumentError(
    "It must be registry/repository without tag or digest, such as ghcr.io/team/installer.",
  );
}

/** "a,b", and more if the option is repeated. */
export const names = (text: string, before: string[]): string[] => [
  ...before,
  ...text.split(",").filter((name) => name !== ""),
];

/** `names` of which there must be one: an empty variable of a script must not mean "all". */
export function someNames(text: string, before: string[]): string[] {
  const given = names(text, before);
  if (given.length > 0) return given;
  throw new InvalidArgumentError("It names nothing.");
}

/** An option that may be repeated. */
export const each = (text: string, before: string[]): string[] => [...before, text];

/** `each` of exactly so many hex digits. */
export const eachHex =
  (length: number) =>
  (text: string, before: string[]): string[] => [...before, hexDigits(length)(text)];

const partsOfTcb = new RegExp(`^(?:([A-Za-z]+):)?${snpTcbParts.map((part) => `${part}=(\\d{1,3})`).join(",")}$`);

/** "bootloader=3,tee=0,snp=8,microcode=115", "Milan:" before it if it is only of that; repeated: several. */
export function snpTcb(text: string, before: SnpTcb[]): SnpTcb[] {
  const [whole, name, ...digits] = partsOfTcb.exec(text) ?? [];
  const [bootloader = 256, tee = 256, snp = 256, microcode = 256] = digits.map(Number);
  if (whole === undefined || Math.max(bootloader, tee, snp, microcode) > 255)
    throw new InvalidArgumentError(
      `It must be ${snpTcbParts.map((part) => `${part}=N`).join(",")}, each from 0 to 255.`,
    );
  const product = snpProducts.find((each) => each === name);
  if (name !== undefined && product === undefined)
    throw new InvalidArgumentError(`"${name}" is none of the products ${snpProducts.join(", ")}.`);
  return [...before, { ...(product && { product }), bootloader, tee, snp, microcode }];
}

/** "2=HEX": RTMR0 of guests with two vCPUs; repeated: of others. */
export function rtmr0(text: string, before: [count: string, value: string][]): [count: string, value: string][] {
  const [, count = "", digits = ""] = /^([1-9]\d{0,2})=([0-9a-f]{96})$/i.exec(text) ?? [];
  if (count === "" || Number(count) > mostVcpus)
    throw new InvalidArgumentError("It must be COUNT=VALUE: a number of vCPUs and 96 hex digits.");
  const value = digits.toLowerCase();
  if (before.some(([other, its]) => other === count && its !== value))
    throw new InvalidArgumentError(`There are two values for ${count} vCPUs.`);
  return [...before, [count, value]];
}

type KataSetting = [table: string, key: string, value: unknown];

/** "hypervisor.default_memory=1024": a key of a runtime's `kata`. What is no JSON is a text; repeated: of other keys. */
export function kataSetting(text: string, before: KataSetting[]): KataSetting[] {
  const [, table = "", key = "", value = ""] = /^([^.=]+)\.([^=]+)=(.*)$/s.exec(text) ?? [];
  if (table === "")
    throw new InvalidArgumentError("It must be TABLE.KEY=VALUE such as hypervisor.default_memory=1024.");
  if (before.some(([other, its]) => other === table && its === key))
    throw new InvalidArgumentError(`There are two values for ${table}.${key}.`);
  return [...before, [table, key, kataValue(value)]];
}

function kataValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** As many as a Kata guest of a usual host gets; larger tables are slow to nobody's use. */
const mostVcpus = 512;

/** "4", "1-8" or a list of both. */
export function vcpuCounts(text: string): readonly number[] {
  const counts = text.split(",").flatMap((part) => {
    const [, first = "", last = first] = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(part) ?? [];
    const length = Number(last) - Number(first) + 1;
    if (first === "" || Number(first) < 1 || Number(last) > mostVcpus || length < 1)
      throw new InvalidArgumentError(`It must be counts from 1 to ${mostVcpus} such as 2, 1-8 or 1,4-6.`);
    return Array.from({ length }, (_, index) => Number(first) + index);
  });
  return [...new Set(counts)].toSorted((a, b) => a - b);
}
