import { canonicalJson, sha256 } from "./canonical.ts";
import type { PayloadFile } from "./manifest.ts";
import { platforms } from "./platforms.ts";
import { type PlatformName, platformNames, type RuntimeSpec } from "./spec.ts";

/** Raised only when the meaning of the hashed document changes, because that renames every handler. */
const schemaVersion = 1;
/** Stands in for the handler's own name, which cannot be part of what the name is derived from. */
const placeholder = "<handler>";

/** Everything of a runtime that will be on a node, for a handler of this name. */
export interface RuntimeContents {
  files: PayloadFile[];
  kataConfig: RuntimeSpec["kataConfig"];
  containerd: RuntimeSpec["containerd"];
}

/**
 * The handler's name: `contrast-cc-<platform>-<8 hex>`, `contrast-insecure-…` where nothing is confidential or settings
 * weaken the guest, `…-<platform>-debug-<8 hex>` where Kata logs everything. The hex digits are the first of the SHA-256 of everything that would make two installations differ, so that two runtimes
 * share a name only if they are identical.
 */
export function deriveHandler(
  platform: PlatformName,
  contents: (handler: string) => RuntimeContents,
  kind: HandlerKind = {},
): string {
  const { files, kataConfig, containerd } = contents(placeholder);
  const document = canonicalJson({ schemaVersion, platform, files, kataConfig, containerd });
  return nameOf(platform, sha256(document).slice(0, digits), kind);
}

/** What a name says beside the platform, for whoever reads nothing but the name. */
export interface HandlerKind {
  /** Kata logs everything: for debugging. */
  debug?: boolean;
  /** Settings weaken the guest. */
  insecure?: boolean;
}

const digits = 8;
const nameOf = (platform: PlatformName, hex: string, { debug = false, insecure = false }: HandlerKind): string =>
  `contrast-${insecure || platforms[platform].insecure ? "insecure" : "cc"}-${platform}${debug ? "-debug" : ""}-${hex}`;
const kinds: HandlerKind[] = [false, true].flatMap((debug) => [false, true].map((insecure) => ({ debug, insecure })));

/** The platform that a handler's name says; undefined for every other name. */
export const platformOf = (handler: string): PlatformName | undefined =>
  platformNames.find((platform) => kinds.some((kind) => handler === nameOf(platform, handler.slice(-digits), kind)));
