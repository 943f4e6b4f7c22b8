import { isUtf8 } from "node:buffer";
import { hash } from "node:crypto";
import { gunzipSync, gzipSync } from "node:zlib";
import { parse, TomlError } from "smol-toml";
import * as z from "zod";
import { View } from "../measure/bytes.ts";
import { sha256 } from "../runtime/canonical.ts";
import { cdhImage, type GuestRegistry } from "../runtime/guest-registry.ts";
import { Refusal } from "../runtime/refusal.ts";
import { tomlProblem, tomlString } from "../runtime/toml.ts";

/** Kubernetes allows 256 KiB of annotations on an object; no policy unpacks to more than this. */
const largestDocument = 16 << 20;

/** Contrast also spells the algorithms with a dash. */
const algorithms = {
  sha256: "sha256",
  sha384: "sha384",
  sha512: "sha512",
  "sha-256": "sha256",
  "sha-384": "sha384",
  "sha-512": "sha512",
} as const;
export type InitdataAlgorithm = (typeof algorithms)[keyof typeof algorithms];

const initdataSchema = z.strictObject({
  version: z.literal("0.1.0"),
  algorithm: z.enum(Object.keys(algorithms) as (keyof typeof algorithms)[]),
  data: z.record(z.string(), z.string()),
});

export interface Initdata {
  algorithm: InitdataAlgorithm;
  /** By file name: "policy.rego", "aa.toml", "cdh.toml". */
  data: Record<string, string>;
}

/** The TOML document, always the same bytes for the same content: the digest is over these bytes. */
export function initdataDocument({ algorithm, data }: Initdata): string {
  const entries = Object.entries(data)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, text]) => `${tomlString(name)} = ${tomlText(text)}\n`);
  return `algorithm = "${algorithm}"\nversion = "0.1.0"\n\n[data]\n${entries.join("")}`;
}

/** Readable if TOML can hold the text literally: a newline right after the opening quotes is not part of it. */
function tomlText(text: string): string {
  const literal = !text.includes("'''") && !text.endsWith("'") && !/[^\t\n\x20-\x7e\x80-\uffff]/.test(text);
  return literal && text.includes("\n") ? `'''\n${text}'''` : tomlString(text);
}

/** Reads a document and checks its shape. */
export function parseInitdata(document: string): Initdata {
  let parsed: unknown;
  try {
    parsed = parse(document);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    refuseEncoded(document, "The initdata document");
    const where = `line ${error.line}, column ${error.column}`;
    throw new Refusal("initdata", `The initdata document is not TOML: ${tomlProblem(error)} (${where}).`);
  }
  const result = initdataSchema.safeParse({ algorithm: "sha256", ...(parsed as object) });
  if (!result.success) {
    const problems = result.error.issues.map((issue) => `${issue.path.join(".") || "document"}: ${issue.message}`);
    throw new Refusal("initdata", `The initdata document is not valid. ${problems.join("; ")}.`);
  }
  return { algorithm: algorithms[result.data.algorithm], data: result.data.data };
}

const base64 = /^[A-Za-z0-9+/\s]+={0,2}\s*$/;

/** Tools that encode a document do not ask whether it is one; guests do not start with what comes of that. */
function refuseEncoded(text: string, what: string): void {
  const inner = base64.test(text) ? Buffer.from(text, "base64") : Buffer.alloc(0);
  if (inner[0] === 0x1f && inner[1] === 0x8b) {
    throw new Refusal(
      "initdata",
      `${what} is itself an encoded annotation (base64 of gzip data): decode it first (measure initdata --decode), and encode it only once.`,
    );
  }
  if (isUtf8(inner) && /^\s*(version|algorithm|\[data\])/m.test(inner.toString("utf8")))
    throw new Refusal("initdata", `${what} is base64 of a document: decode it first.`);
}

/** Hash of the document's bytes with its own algorithm, as Kata's runtimes and agent compute it. */
export function initdataDigest(document: string): { algorithm: InitdataAlgorithm; digest: Buffer } {
  const { algorithm } = parseInitdata(document);
  return { algorithm, digest: hash(algorithm, document, "buffer") };
}

/** A digest in a field of the TEE: longer ones are truncated, shorter ones padded with zeroes. */
export function fitDigest(digest: Uint8Array, size: number): Buffer {
  const field = Buffer.alloc(size);
  field.set(digest.subarray(0, size));
  return field;
}

/** HOSTDATA of the SNP report: 32 bytes. */
export const hostData = (document: string): Buffer => fitDigest(initdataDigest(document).digest, 32);
/** MRCONFIGID of the TDX report: 48 bytes. */
export const mrConfigId = (document: string): Buffer => fitDigest(initdataDigest(document).digest, 48);

/** SHA-256 of a policy, hex: the name of a policy in Contrast's manifest, and HOSTDATA where no initdata is used. */
export const policyDigest = (rego: string | Uint8Array): string => sha256(rego);

/** base64(gzip(document)). The compressed bytes are not part of any digest; zlib writes no time or name, so they are stable. */
export const encodeInitdata = (document: string): string => gzipSync(document, { level: 9 }).toString("base64");

export function decodeInitdata(annotation: string): string {
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(annotation))
    throw new Refusal("initdata", "The initdata annotation is not base64.");
  const document = unpack(Buffer.from(annotation, "base64"), "The initdata annotation");
  refuseEncoded(document, "What the initdata annotation holds");
  return document;
}

function unpack(compressed: Uint8Array, what: string): string {
  let bytes: Buffer;
  try {
    bytes = gunzipSync(compressed, { maxOutputLength: largestDocument });
  } catch (error) {
    throw new Refusal(
      "initdata",
      `${what} is not gzip data of at most ${largestDocument} bytes: ${(error as Error).message}.`,
    );
  }
  return documentText(bytes, what);
}

/** The document in these bytes. Its digest covers the bytes, so invalid UTF-8 is refused rather than replaced. */
export function documentText(bytes: Uint8Array, what: string): string {
  if (!isUtf8(bytes)) throw new Refusal("initdata", `${what} is not UTF-8.`);
  return Buffer.from(bytes).toString("utf8");
}

const diskMagic = "initdata";

/** A text may begin with the same word, but without a length and gzip data after it. */
export const isInitdataDisk = (bytes: Uint8Array): boolean =>
  Buffer.from(bytes.subarray(0, 8)).toString("latin1") === diskMagic && bytes[16] === 0x1f && bytes[17] === 0x8b;

/**
 * The document on the disk with which Kata hands it to the guest: "initdata", u64 length of the gzip data (little-endian),
 * the data, zeroes up to a multiple of 512 bytes.
 */
export function readInitdataDisk(disk: Uint8Array): string {
  const view = new View(disk, "initdata disk");
  if (view.text(0, 8, "magic") !== diskMagic) view.fail(0, `does not start with "${diskMagic}"`);
  return unpack(view.slice(16, view.size64(8, "length"), "the compressed document"), "The initdata disk");
}

/**
 * `cdh.toml` for guests that pull images themselves: pod pull secrets do not reach them, and initdata is readable by the
 * host, so credentials stay with the key broker and only their address is here (guest-components, confidential-data-hub).
 */
export function cdhConfiguration(options: {
  kbsUrl: string;
  /** PEM. */
  kbsCertificate?: string;
  /** `kbs:///<repository>/<type>/<tag>` of a file as `registryAuthFile` makes it. */
  credentialsUri?: string;
  /** PEM certificates of registries. */
  rootCertificates?: string[];
  /** How registries are reached besides. */
  registry?: Pick<GuestRegistry, "proxy" | "registries">;
}): string {
  if (options.credentialsUri !== undefined && !/^kbs:\/\/[^/]*\/[^/]+\/[^/]+\/[^/]+$/.test(options.credentialsUri)) {
    throw new Refusal(
      "initdata",
      `credentialsUri is "${options.credentialsUri}", expected kbs:///<repository>/<type>/<tag>: initdata is readable by the host, so it holds no credentials itself.`,
    );
  }
  const lines = ["[kbc]", 'name = "cc_kbc"', `url = ${tomlString(options.kbsUrl)}`];
  if (options.kbsCertificate !== undefined) lines.push(`kbs_cert = ${tomlString(options.kbsCertificate)}`);
  const { credentialsUri, rootCertificates = [], registry = {} } = options;
  const image = cdhImage({ ...registry, credentialsUri }, rootCertificates);
  return `${lines.join("\n")}\n${image === "" ? "" : `\n${image}`}`;
}

/**
 * Initdata with what its guests are told about registries: as the part `[image]` of its `cdh.toml`, which is made if there is
 * none. Upstream's guests only: Contrast's read nothing of it.
 *
 * @throws Refusal where `cdh.toml` says something about images already, or lacks the key broker that has the logins
 */
export function withGuestRegistry(initdata: Initdata, registry: GuestRegistry): Initdata {
  const image = cdhImage(registry);
  if (image === "") return initdata;
  const given = initdata.data["cdh.toml"];
  const refuse = (message: string) => new Refusal("initdata", message);
  if (given === undefined && registry.credentialsUri !== undefined)
    throw refuse(
      `guestRegistry.credentialsUri is "${registry.credentialsUri}", but initdata has no "cdh.toml" that says where the key broker is.`,
    );
  let document: object;
  try {
    document = parse(given ?? noKeyBroker);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw refuse(`The initdata's "cdh.toml" is not TOML: ${tomlProblem(error)}.`);
  }
  if ("image" in document)
    throw refuse(
      'The initdata\'s "cdh.toml" has a table [image] already: say it there or in guestRegistry, not in both.',
    );
  return { ...initdata, data: { ...initdata.data, "cdh.toml": `${(given ?? noKeyBroker).trimEnd()}\n\n${image}` } };
}

/** Takes away again what `withGuestRegistry` added for this very registry. */
export function withoutGuestRegistry(initdata: Initdata, registry: GuestRegistry): Initdata {
  const { "cdh.toml": cdh, ...others } = initdata.data;
  const image = cdhImage(registry);
  if (image === "" || !cdh?.endsWith(`\n\n${image}`)) return initdata;
  const given = `${cdh.slice(0, -image.length).trimEnd()}\n`;
  return { ...initdata, data: given === noKeyBroker ? others : { ...others, "cdh.toml": given } };
}

/** Guest components need the table; this one asks nobody. */
const noKeyBroker = '[kbc]\nname = "offline_fs_kbc"\nurl = ""\n';

/** A containers-auth.json(5) file: what the key broker holds under `credentialsUri`. */
export function registryAuthFile(credentials: Record<string, { username: string; password: string }>): string {
  const auths = Object.keys(credentials)
    .sort()
    .map((registry) => {
      const { username = "", password = "" } = credentials[registry] ?? {};
      if (username.includes(":"))
        throw new Refusal(
          "registry-credentials",
          `The user name for ${registry} has a ":", which basic authentication cannot carry.`,
        );
      return [registry, { auth: Buffer.from(`${username}:${password}`).toString("base64") }];
    });
  return `${JSON.stringify({ auths: Object.fromEntries(auths) })}\n`;
}
