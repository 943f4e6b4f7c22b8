import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { offersBootFiles, takesBootFiles } from "../../../measure/boot-files.ts";
import { FormatError, guidBytes, sha384, sourceOf, toHex, View } from "../../../measure/bytes.ts";
import { launchValues } from "../../../measure/launch-values.ts";
import { unpackLzma } from "../../../measure/lzma.ts";
import { authenticode } from "../../../measure/pe.ts";
import { referenceValues } from "../../../measure/reference-values.ts";
import { measuredRuntime } from "../../../measure/runtime.ts";
import { extendRtmr, rtmr1, rtmrs } from "../../../measure/tdx.ts";
import { contrastReferenceValues, trusteeReferenceValues } from "../../../measure/verifier-formats.ts";
import { judgeSettings } from "../../../runtime/kata-overrides.ts";
import { measurementInputs } from "../../../runtime/measurement-inputs.ts";
import { payloadsFor } from "../../campaigns/kata-payload.ts";
import { fileSource, firmware, podVm, problemsOf } from "./pod-vm.ts";
import { expected, sum, vector } from "./vectors.ts";

const packs = Object.entries(expected.lzma.base64).map(([name, text]) => [name, Buffer.from(text, "base64")] as const);
const [, pack = Buffer.alloc(0)] = packs[0] ?? [];
const unpack = (bytes: Uint8Array) => unpackLzma(new View(bytes, "firmware"), 0);
const other = (letter: string) => letter.repeat(96);

describe("the kernel as firmware measures it", () => {
  const { file, ...digests } = expected.authenticode;
  const signed = vector(file);

  test.each(["sha256", "sha384"] as const)("its Authenticode digest is osslsigncode's: %s", (algorithm) => {
    expect(toHex(authenticode(fileSource(signed), algorithm))).toBe(digests[algorithm]);
  });

  test("signature and checksum are no part of it, every other byte is", () => {
    const view = new View(signed, "kernel");
    const pe = view.u32(0x3c, "PE");
    const free = new Set([88, 89, 90, 91].map((at) => pe + at));
    for (let at = pe + 168; at < pe + 176; at += 1) free.add(at);
    const end = signed.length - view.u32(pe + 172, "size");
    fc.assert(
      fc.property(fc.nat(signed.length - 1), (at) => {
        const changed = Uint8Array.from(signed);
        changed[at] = (changed[at] ?? 0) ^ 0x10;
        let digest: string | undefined;
        try {
          digest = toHex(authenticode(sourceOf(changed), "sha384"));
        } catch (error) {
          // A header that no longer holds; of the certificates' entry this is the size.
          expect(error).toBeInstanceOf(FormatError);
          return;
        }
        // Another size of the certificates leaves other bytes out.
        if (at < pe + 172 || at >= pe + 176) expect(digest === digests.sha384).toBe(at >= end || free.has(at));
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    [24, 0x107, /has the PE format 0x107, expected 0x10b or 0x20b/],
    [24 + 60, 0, /says that its PE headers have 0 bytes, expected \d+ to 4064/],
    [172, 0xffff, /has PE sections and certificates of \d+ bytes, but there are 4064/],
  ])("headers that firmware would not load are refused: %i", (at, value, sentence) => {
    const changed = Buffer.from(signed);
    changed.writeUInt16LE(value, changed.readUInt32LE(0x3c) + at);
    expect(() => authenticode(sourceOf(changed), "sha384")).toThrow(sentence);
  });
});

describe("compressed firmware volumes", () => {
  test.each(packs)("LZMA with lc, lp, pb %s unpacks to what was packed", (_, bytes) => {
    const text = unpack(bytes);
    expect([text.length, sum(text)]).toEqual([expected.lzma.size, expected.lzma.sha256]);
  });

  test("damaged data is refused or other data, and never runs away", () => {
    fc.assert(
      fc.property(fc.nat(pack.length - 1), fc.integer({ min: 1, max: 255 }), fc.boolean(), (at, bits, cut) => {
        const changed = cut ? pack.subarray(0, at) : Buffer.from(pack);
        if (!cut) changed[at] = (changed[at] ?? 0) ^ bits;
        try {
          expect(unpack(changed).length).toBeLessThan(1 << 28);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 200 },
    );
    expect(() => unpack(Buffer.concat([pack.subarray(0, 9), Buffer.from([1]), pack.subarray(10)]))).toThrow(
      /LZMA data of \d+ bytes is more than any firmware has/,
    );
  });

  test("what a firmware's drivers read by name is found in them", () => {
    // The packed text has it somewhere.
    const image = firmware();
    expect(takesBootFiles(image)).toBe(true);
    image.fill(0x5a, 0x100, 0x110);
    expect(takesBootFiles(image)).toBe(false);
    const section = Buffer.alloc(24);
    section.writeUIntLE(24 + pack.length, 0, 3);
    section[3] = 2;
    section.set(guidBytes("ee4e5898-3914-4259-9d6e-dc7bd79403cf"), 4);
    section.writeUInt16LE(24, 20);
    image.set(section, 0x6000);
    image.set(pack, 0x6000 + 24);
    expect(takesBootFiles(image)).toBe(Buffer.from(unpack(pack)).includes("etc/boot/\0"));
    expect(Buffer.from(unpack(pack)).includes("etc/boot/\0")).toBe(true);
  });

  test("what a QEMU offers is found wherever it stands", () => {
    const large = Buffer.alloc((2 << 20) + 50);
    expect(offersBootFiles(fileSource(large))).toBe(false);
    large.write("etc/boot/kernel\0", (1 << 20) - 7, "latin1");
    expect(offersBootFiles(fileSource(large))).toBe(true);
  });
});

describe("registers", () => {
  test("RTMR1 is what a real log's events make of the kernel", () => {
    const { calling, separator, exit, exited, value } = expected.rtmr1;
    const kernel = Buffer.from(expected.authenticode.sha384, "hex");
    expect(toHex(rtmr1(kernel))).toBe(value);
    const log = [kernel, ...[calling, separator, exit, exited].map((digest) => Buffer.from(digest, "hex"))];
    expect(toHex(log.reduce<Buffer>(extendRtmr, Buffer.alloc(48)))).toBe(value);
  });

  test("the event of the load options is what RTMR2 starts with", () => {
    fc.assert(
      fc.property(fc.string(), fc.option(fc.uint8Array(), { nil: undefined }), (commandLine, initrd) => {
        const initrdSha384 = initrd && sha384(initrd);
        const { values, events } = rtmrs({ commandLine, initrdSha384 });
        const first = extendRtmr(Buffer.alloc(48), Buffer.from(events.loadOptions ?? "", "hex"));
        expect(values[2]).toBe(toHex(initrdSha384 === undefined ? first : extendRtmr(first, initrdSha384)));
      }),
    );
  });

  test("RTMR1 is published only where QEMU and firmware pass the kernel on as it is", () => {
    const reasonOf = (changes: Parameters<typeof podVm>[0]) =>
      referenceValues(podVm(changes).inputs, { tee: "tdx" }).notPredictable.find(({ name }) => name === "RTMR1")
        ?.reason;
    expect(reasonOf({})).toBeUndefined();
    expect(reasonOf({ vmm: Buffer.from("QEMU 9.2") })).toMatch(/as QEMU patched it.*this QEMU offers no other/);
    const old = firmware();
    old.fill(0, 0x100, 0x110);
    expect(reasonOf({ firmware: old })).toMatch(/this firmware takes no other/);
  });

  test("a manifest of an earlier version has no RTMR1, and is none to be refused", () => {
    const vm = podVm();
    const { vmm: _, tdx, kernel, ...others } = vm.inputs;
    const { authenticode: __, ...kernelBefore } = kernel ?? { sha256: "", efiStub: true };
    const inputs = { ...others, kernel: kernelBefore, ...(tdx && { tdx: { mrtd: tdx.mrtd } }) };
    expect(problemsOf(vm, "tdx", inputs)).toEqual([]);
    const { tdx: rows, notPredictable } = referenceValues(inputs, { tee: "tdx" });
    expect([rows[0]?.rtmrs[1], rows[0]?.events.kernel]).toEqual([null, undefined]);
    expect(notPredictable.find(({ name }) => name === "RTMR1")?.reason).toMatch(/lock again$/);
  });

  test("what an earlier version read wrongly of firmware is refused", () => {
    const vm = podVm();
    const { vmm: _, ...before } = vm.inputs;
    const files = vm.files.map((file) => (file.role === "firmware" ? { ...file, size: 4 << 20 } : file));
    for (const tee of ["snp", "tdx"] as const) {
      expect(problemsOf({ ...vm, files }, tee, before)).toEqual([
        "The manifest is of an earlier version that read firmware wrongly: its MRTD and SNP digests are those of no guest.",
      ]);
      expect(problemsOf({ ...vm, files }, tee)).toEqual([]);
    }
  });

  test("another QEMU than the one that was looked into is refused", () => {
    const vm = podVm();
    const files = vm.files.map((file) => (file.role === "vmm" ? { ...file, sha256: "9".repeat(64) } : file));
    expect(problemsOf({ ...vm, files }, "tdx")).toEqual([expect.stringMatching(/^The vmm .* has the SHA-256 9{64}/)]);
  });

  test("RTMR0 is never computed: given ones stand in their counts' rows, of the others the reason", () => {
    const { inputs } = podVm();
    const rtmr0 = { 1: other("a"), 2: other("b") };
    const given = measurementInputs.parse({ ...inputs, tdx: { ...inputs.tdx, rtmr0 } });
    const values = referenceValues(given, { tee: "tdx", vcpus: [1, 2, 3] });
    expect(values.tdx.map(({ vcpus, rtmrs: [first] }) => [vcpus, first])).toEqual([
      [1, other("a")],
      [2, other("b")],
      [3, null],
    ]);
    expect(values.notPredictable).toEqual([
      { name: "RTMR0", reason: expect.stringMatching(/for 3 vCPUs nobody gave/) },
    ]);
    const platform = "metal-qemu-tdx";
    const { tdx } = contrastReferenceValues(values, {
      platform,
      guestPolicy: 0x30000n,
      hosts: { mrSeam: [other("c")] },
    });
    expect(tdx).toEqual([
      {
        Platform: "Metal-QEMU-TDX",
        MrTd: values.tdx[0]?.mrtd,
        MrSeam: other("c"),
        Rtmrs: [other("a"), ...(values.tdx[0]?.rtmrs.slice(1) ?? [])],
        Rtmr0Alternatives: [other("b")],
        Xfam: "e702060000000000",
        MemoryIntegrity: false,
      },
    ]);
    expect(trusteeReferenceValues(values, 0x30000n)).toMatchObject({ rtmr_0: [other("a"), other("b")] });
  });
});

describe("what Trustee's policy compares with one value", () => {
  test("kernel and load options are single values, and left out where they are several", () => {
    const { inputs } = podVm();
    const trustee = (commandLine: string) =>
      trusteeReferenceValues(referenceValues({ ...inputs, commandLine }, { tee: "tdx", vcpus: [1, 2] }), 0x30000n);
    expect(trustee("quiet")).toMatchObject({
      tdvfkernel: inputs.kernel?.authenticode,
      tdvfkernelparams: toHex(sha384(Buffer.from("initrd=initrd quiet\0", "utf16le"))),
      // With and without CET.
      xfam: ["e702060000000000", "e71a060000000000"],
    });
    expect(Object.keys(trustee("nr_cpus={vcpus}"))).not.toContain("tdvfkernelparams");
    expect(trustee("nr_cpus={vcpus}")).toMatchObject({ rtmr_2: [expect.any(String), expect.any(String)] });
  });

  test("TCBs are lists, settings of the hosts single values, and absent where nobody gave them", () => {
    const values = referenceValues(podVm().inputs, { tee: "snp", vcpus: [1] });
    const tcb = { bootloader: 4, tee: 0, snp: 22, microcode: 213 };
    expect(
      trusteeReferenceValues(values, 0x30000n, { snpTcb: [tcb, { ...tcb, microcode: 214 }], smt: true, tsme: false }),
    ).toMatchObject({
      snp_bootloader: [4],
      snp_tee_svn: [0],
      snp_snp_svn: [22],
      snp_microcode: [213, 214],
      snp_smt_enabled: true,
      snp_tsme_enabled: false,
    });
    expect(Object.keys(trusteeReferenceValues(values, 0x30000n))).toEqual([
      "snp_launch_measurement",
      "snp_guest_abi_major",
      "snp_guest_abi_minor",
      "snp_single_socket",
      "snp_smt_allowed",
    ]);
  });
});

test.each([
  ["default_memory", 2048, false],
  ["default_bridges", 3, false],
  ["enable_iommu", true, false],
  ["default_vcpus", 2, true],
  ["block_device_aio", "native", true],
])("an RTMR0 that was given is not that of guests with another %s", (key, value, stays) => {
  const platform = "metal-qemu-tdx";
  const [payload] = payloadsFor({ flavour: "kata-go", kataVersion: "4.1.0" });
  const tdx = payload?.manifest.measurement?.tdx;
  if (payload === undefined || tdx === undefined) throw new Error("the payload has a firmware with TDX");
  const rtmr0 = "ab".repeat(48);
  const measurement = { ...payload.manifest.measurement, tdx: { ...tdx, rtmr0: { "2": rtmr0 } } };
  const given = { ...payload.manifest, measurement };
  const { changes } = judgeSettings({ platform, manifest: given }, { kata: { hypervisor: { [key]: value } } });
  const values = launchValues(measuredRuntime({ platform, manifest: given, changes }));
  expect(values["RTMR0, 2 vCPUs"]).toBe(stays ? rtmr0 : undefined);
  if (!stays) expect(values.RTMR0).toMatch(/^not predictable: /);
});
