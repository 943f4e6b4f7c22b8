import { gzipSync } from "node:zlib";
// An independent reader: the product itself reads TOML with smol-toml.
import { parse } from "@iarna/toml";
import fc from "fast-check";
import { expect, test } from "vitest";
import { toHex } from "../../../measure/bytes.ts";
import { sha256 } from "../../../runtime/canonical.ts";
import {
  cdhConfiguration,
  decodeInitdata,
  documentText,
  encodeInitdata,
  fitDigest,
  hostData,
  initdataDigest,
  initdataDocument,
  mrConfigId,
  parseInitdata,
  policyDigest,
  readInitdataDisk,
  registryAuthFile,
} from "../../../workload/initdata.ts";
import { expected, vector } from "../measure/vectors.ts";

test("digest, HOSTDATA and MRCONFIGID of a document", () => {
  const { toml, sha256: short, sha384: long } = expected.initdata;
  expect(toHex(initdataDigest(toml).digest)).toBe(short);
  expect(toHex(hostData(toml))).toBe(short);
  expect(toHex(mrConfigId(toml))).toBe(short + "00".repeat(16));
  // Another algorithm makes another document; its digest is longer than HOSTDATA and is truncated.
  expect(toHex(fitDigest(Buffer.from(long, "hex"), 32))).toBe(long.slice(0, 64));
  expect(initdataDocument({ algorithm: "sha256", data: { "aa.toml": "[token_configs]\n" } })).toBe(toml);
});

test("the document that Kata's own test disk holds", () => {
  const disk = vector("initdata.img");
  expect(readInitdataDisk(disk)).toBe("some content");
  const lying = Buffer.from(disk);
  lying.writeBigUInt64LE(1n << 60n, 8);
  expect(() => readInitdataDisk(lying)).toThrow(
    "length is 0x1000000000000000, more than any file holds (at offset 0x8)",
  );
});

test("bytes that are not UTF-8 are refused: with replacements, they would have another digest", () => {
  const bytes = Buffer.from(`${expected.initdata.toml}# caf\xe9\n`, "latin1");
  expect(() => documentText(bytes, "The initdata document")).toThrow("The initdata document is not UTF-8.");
  expect(() => decodeInitdata(gzipSync(bytes).toString("base64"))).toThrow("The initdata annotation is not UTF-8.");
  expect(documentText(Buffer.from("# café\n"), "The initdata document")).toBe("# café\n");
});

test("any content survives document and annotation", () => {
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom("a'''b\n", "x\n'", "line\r\nline\n", "\ttab\n\x7f"),
  );
  fc.assert(
    fc.property(fc.dictionary(fc.string({ minLength: 1 }), text), (data) => {
      const clean = Object.fromEntries(Object.entries(data).filter(([name]) => name !== "__proto__"));
      const document = initdataDocument({ algorithm: "sha384", data: clean });
      expect({ ...(parse(document).data as object) }).toEqual(clean);
      expect(decodeInitdata(encodeInitdata(document))).toBe(document);
    }),
  );
});

test("wrong documents and annotations are refused with the field", () => {
  expect(() => parseInitdata('version = "0.2.0"\nalgorithm = "md5"\n[data]\n"a" = 1\n')).toThrow(
    /version: .*algorithm: .*data\.a: /,
  );
  expect(() => parseInitdata(`version = "0.1.0"\n${"x".repeat(1000)} = `)).toThrow(
    /^The initdata document is not TOML: [^\n]* \(line 2, column \d+\)\.$/,
  );
  expect(() => decodeInitdata("!")).toThrow(/not base64/);
  expect(() => decodeInitdata("AAAA")).toThrow(/not gzip data/);
  expect(parseInitdata('version = "0.1.0"\nalgorithm = "sha-256"\n[data]\n').algorithm).toBe("sha256");
});

test("a policy's digest is over its bytes", () => {
  expect(policyDigest("package agent_policy\n")).toBe(sha256("package agent_policy\n"));
});

test("guest pull: credentials stay with the key broker, and initdata has their address", () => {
  const uri = "kbs:///default/credential/registry";
  const configuration = cdhConfiguration({
    kbsUrl: "https://kbs:8080",
    credentialsUri: uri,
    rootCertificates: ["-----BEGIN\n"],
  });
  expect(parse(configuration)).toEqual({
    kbc: { name: "cc_kbc", url: "https://kbs:8080" },
    image: { authenticated_registry_credentials_uri: uri, extra_root_certificates: ["-----BEGIN\n"] },
  });
  expect(() => cdhConfiguration({ kbsUrl: "https://kbs:8080", credentialsUri: "user:password" })).toThrow(
    /initdata is readable by the host/,
  );
  expect(JSON.parse(registryAuthFile({ "registry.example": { username: "u", password: "p:q" } }))).toEqual({
    auths: { "registry.example": { auth: Buffer.from("u:p:q").toString("base64") } },
  });
});

test("a document or an annotation that was encoded twice is recognized as such", () => {
  const document = initdataDocument({ algorithm: "sha256", data: { "policy.rego": "package agent_policy\n" } });
  const annotation = encodeInitdata(document);
  expect(() => parseInitdata(annotation)).toThrow("is itself an encoded annotation");
  expect(() => parseInitdata(Buffer.from(document).toString("base64"))).toThrow("is base64 of a document");
  expect(() => decodeInitdata(encodeInitdata(annotation))).toThrow("What the initdata annotation holds is itself");
  expect(decodeInitdata(annotation)).toBe(document);
});
