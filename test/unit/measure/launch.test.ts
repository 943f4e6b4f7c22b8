import { createPublicKey, verify } from "node:crypto";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { sha384, toHex } from "../../../measure/bytes.ts";
import { idBlockBytes, keylessIdBlock } from "../../../measure/id-block.ts";
import { readIgvm } from "../../../measure/igvm.ts";
import { measureIgvm } from "../../../measure/igvm-digest.ts";
import { readFirmware } from "../../../measure/ovmf.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../../measure/snp.ts";
import { mrtd } from "../../../measure/tdx.ts";
import { cpuSignature, signatureOf, type Vmm, vmsaPage } from "../../../measure/vmsa.ts";
import { type IgvmPart, igvmOf, igvmPage } from "./pod-vm.ts";
import { expected, nothing, sum, vector } from "./vectors.ts";

test.each(
  expected.snp.map(
    (row) => [`${row.ovmf} ${row.cpu} ${row.vcpus} ${row.guestFeatures} ${row.vmm} ${row.append}`, row] as const,
  ),
)("launch digest of %s", (_, row) => {
  const bytes = vector(row.ovmf);
  const launch = {
    ...firmwareLaunch(bytes, readFirmware(bytes)),
    guestFeatures: row.guestFeatures,
    vmm: row.vmm as Vmm,
    ...(row.kernelInitrdDevNull
      ? { kernel: { kernel: nothing, initrd: nothing, commandLine: commandLineHash(row.append ?? "") } }
      : {}),
  };
  expect(toHex(launchDigest(launch, Number(row.sig), row.vcpus))).toBe(row.digest);
  expect(signatureOf(row.cpu)).toBe(Number(row.sig));
});

test.each(expected.vmsaSha384)("VMSA pages of $cpu", ({ cpu, guestFeatures, bsp, ap }) => {
  const { resetEip = 0 } = readFirmware(vector("ovmf_AmdSev_suffix.bin"));
  const page = (eip: number) => toHex(sha384(vmsaPage({ eip, guestFeatures, cpuSignature: signatureOf(cpu) })));
  expect(page(0xfffffff0)).toBe(bsp);
  expect(page(resetEip)).toBe(ap);
});

test("a CPU signature from family, model and stepping is the one of QEMU's model", () => {
  expect(cpuSignature(25, 17, 0)).toBe(signatureOf("EPYC-Genoa"));
  expect(cpuSignature(23, 49, 0)).toBe(signatureOf("EPYC-Rome"));
  expect(cpuSignature(6, 143, 8)).toBe(0x806f8);
});

test("IGVM: launch digests, and the ID block's own digest agrees", () => {
  const digests = {
    "igvm-tooling-test_bzImage-x64-enc.igvm": expected.igvm[0]?.digest,
    "igvm-tooling-test_bzImage-x64-noenc.igvm":
      "744914a6e0d547c38aec12a424791e831ba440b3aa19e26f4fbc03148164adc860af194c0d0b99403d7c37460f18b1cd",
  };
  for (const [file, digest] of Object.entries(digests)) {
    const measured = measureIgvm(readIgvm(vector(file)));
    expect(measured.launchDigest).toBe(digest);
    expect(measured).toMatchObject({ vcpus: 1, policy: 0x3001fn, idBlock: { matches: true, guestSvn: 2 } });
  }
});

test("IGVM: every kind of page, and headers that no launch digest depends on", () => {
  const [snp, other] = [2, 4];
  const platforms: IgvmPart[] = [
    [1, [4, other], [1, 0], [1, 3], [2, 1], [8, 0]],
    [1, [4, snp], [1, 2], [1, 2], [2, 1], [8, 0]],
  ];
  const launch: IgvmPart[] = [
    [257, [8, 0x30000], [4, snp], [4, 0]],
    igvmPage(0x1000, snp | other, 0, 0),
    igvmPage(0x2000, snp, 2, 0),
    igvmPage(0x3000, snp, 4, 0),
    igvmPage(0x4000, snp, 0, 1),
    igvmPage(0x5000, snp, 0, 2),
    igvmPage(0x6000, snp, 0, 3),
    igvmPage(0x7000, other, 0, 0),
    [769, [8, 0x2000], [4, 7], [4, 0]],
    [771, [8, 0x8000], [4, snp], [4, 7]],
  ];
  // As Microsoft's own crate computes it (igvm 0.5.0).
  const digest = "e9c6333f28aef195586941db4b95f28dc03d9ba09b411816974a4d168eaf0710ca9db4985cfc1722807d11ec4670ca3c";
  for (const version of [1, 2] as const)
    expect(measureIgvm(readIgvm(igvmOf(version, [...platforms, ...launch])))).toEqual({
      launchDigest: digest,
      policy: 0x30000n,
      vcpus: 0,
    });
  const more: IgvmPart[] = [
    [260, [4, snp], [4, 0], [4, 0], [4, 0]], // CoRIM document and signature
    [261, [4, snp], [4, 0], [4, 0], [4, 0]],
    [262, [4, other], [4, 0], [8, 0], [8, 0], [8, 0]], // policy of an Arm realm
    [263, [4, 0x2e312e31]], // version string
  ];
  const read = readIgvm(igvmOf(2, [...platforms, ...more, ...launch]));
  expect(measureIgvm(read).launchDigest).toBe(digest);
  expect(() => readIgvm(igvmOf(1, [...platforms, [264, [8, 0]]]))).toThrow(
    "has a header of the unknown type 0x108, which may not be ignored (at offset 0x48)",
  );
  expect(readIgvm(igvmOf(1, [...platforms, [0x80000108, [8, 0]]])).platforms).toHaveLength(2);
});

test("MRTD of a synthetic firmware in both orders", () => {
  const firmware = Uint8Array.from({ length: 0x3000 }, (_, i) => (i * 7 + 3) & 0xff);
  const sections = [
    [0x1000, 0x2000, 0xffffe000, 0x2000, 0, 1],
    [0, 0x1000, 0xffffd000, 0x1000, 1, 0],
    [0, 0, 0x809000, 0x2000, 2, 0],
  ].map(([dataOffset = 0, rawSize = 0, gpa = 0, size = 0, type = 0, attributes = 0]) => ({
    dataOffset,
    rawSize,
    gpa,
    size,
    type,
    attributes,
  }));
  expect(mrtd(firmware, sections)).toBe(expected.mrtd[0]?.singlePass);
  expect(mrtd(firmware, sections, "two-pass")).toBe(expected.mrtd[0]?.twoPass);
});

test("keyless ID block: bytes, recovered key and key digest", () => {
  const launchDigest = Array.from({ length: 48 }, (_, i) => (i + 1).toString(16).padStart(2, "0")).join("");
  const { idblockSha256, idauthSha256, qx, qy, idKeyDigest } = expected.idblock;
  const block = {
    launchDigest,
    familyId: `01${"00".repeat(15)}`,
    imageId: `02${"00".repeat(15)}`,
    guestSvn: 2,
    policy: 0x30000n,
  };
  const made = keylessIdBlock(block);
  expect(idBlockBytes(block)).toEqual(made.block);
  expect([sum(made.block), sum(made.auth)]).toEqual([idblockSha256, idauthSha256]);
  expect([made.key.x.toString(16).padStart(96, "0"), made.key.y.toString(16).padStart(96, "0")]).toEqual([qx, qy]);
  expect(made.idKeyDigest).toBe(idKeyDigest);
});

test("the recovered key is one under which OpenSSL finds the signature (2, 1) of any block valid", () => {
  const base64 = (value: bigint) => Buffer.from(value.toString(16).padStart(96, "0"), "hex").toString("base64url");
  const signature = Buffer.from([2n, 1n].map((value) => value.toString(16).padStart(96, "0")).join(""), "hex");
  const digests = fc.uint8Array({ minLength: 48, maxLength: 48 });
  fc.assert(
    fc.property(digests, fc.bigInt(0n, 2n ** 64n - 1n), (digest, policy) => {
      const { block, key } = keylessIdBlock({
        launchDigest: toHex(digest),
        familyId: "00".repeat(16),
        imageId: "ff".repeat(16),
        guestSvn: 0,
        policy,
      });
      const jwk = { kty: "EC", crv: "P-384", x: base64(key.x), y: base64(key.y) };
      const publicKey = createPublicKey({ key: jwk, format: "jwk" });
      expect(verify("sha384", block, { key: publicKey, dsaEncoding: "ieee-p1363" }, signature)).toBe(true);
    }),
    { numRuns: 20 },
  );
});

test("a kernel on firmware without a hash table is refused", () => {
  const bytes = vector("ovmf_OvmfX64_suffix.bin");
  const launch = {
    ...firmwareLaunch(bytes, readFirmware(bytes)),
    guestFeatures: 1,
    kernel: { kernel: nothing, initrd: nothing, commandLine: nothing },
  };
  expect(() => launchDigest(launch, signatureOf("EPYC-Milan"), 1)).toThrow(/no section for kernel hashes/);
});
