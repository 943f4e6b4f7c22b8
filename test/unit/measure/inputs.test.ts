import { expect, test } from "vitest";
import { rawSha256, sha384, sourceOf, toHex } from "../../../measure/bytes.ts";
import { collectInputs } from "../../../measure/collect-inputs.ts";
import { kataVerityTable } from "../../../measure/kata-kernel-command-line.ts";
import { verityTarget } from "../../../measure/kernel-command-line.ts";
import { readFirmware } from "../../../measure/ovmf.ts";
import { checkConsistency } from "../../../measure/payload-consistency.ts";
import { authenticode } from "../../../measure/pe.ts";
import { explainChanges, measuredInputs } from "../../../measure/reference-value-changes.ts";
import { referenceValues } from "../../../measure/reference-values.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../../measure/snp.ts";
import { extendRtmr, firmwareMrtd, rtmr1 } from "../../../measure/tdx.ts";
import { contrastReferenceValues, trusteeMessage, trusteeReferenceValues } from "../../../measure/verifier-formats.ts";
import { signatureOf } from "../../../measure/vmsa.ts";
import { measurementInputs } from "../../../runtime/measurement-inputs.ts";
import {
  contrast,
  contrastGuest,
  filesOf,
  igvmOf,
  igvmPage,
  initrd,
  kernel,
  passedLine,
  podVm,
  problemsOf,
  rootfs,
} from "./pod-vm.ts";
import { vector } from "./vectors.ts";

const models = ["EPYC-v4", "EPYC-Milan", "EPYC-Genoa"];

test("values from a manifest's JSON are those from the files", () => {
  const { parts, inputs } = podVm();
  const stored = measurementInputs.parse(JSON.parse(JSON.stringify(inputs)));
  const values = referenceValues(stored, { tee: "snp", models, vcpus: [1, 2, 7] });
  const launch = {
    ...firmwareLaunch(parts.firmware, readFirmware(parts.firmware)),
    guestFeatures: 1,
    kernel: {
      kernel: rawSha256(parts.kernel),
      initrd: rawSha256(parts.initrd),
      commandLine: commandLineHash(inputs.commandLine ?? ""),
    },
  };
  expect(values.snp.map((row) => row.measurement)).toEqual(
    models.flatMap((model) => [1, 2, 7].map((vcpus) => toHex(launchDigest(launch, signatureOf(model), vcpus)))),
  );
  expect(values.snp.map((row) => row.product)).toEqual(
    [undefined, "Milan", "Genoa"].flatMap((product) => [product, product, product]),
  );

  const { tdx } = referenceValues(stored, { tee: "tdx" });
  const options = sha384(Buffer.from(`initrd=initrd ${inputs.commandLine}\0`, "utf16le"));
  expect(tdx).toEqual([
    {
      mrtd: firmwareMrtd(parts.firmware, readFirmware(parts.firmware)),
      rtmrs: [
        null,
        toHex(rtmr1(authenticode(sourceOf(parts.kernel), "sha384"))),
        toHex(extendRtmr(extendRtmr(Buffer.alloc(48), options), sha384(initrd))),
        "0".repeat(96),
      ],
      events: { kernel: toHex(authenticode(sourceOf(parts.kernel), "sha384")), loadOptions: toHex(options) },
    },
  ]);
});

test.each([
  [{ size: 2 ** 40 }, "sections: must describe at most 67108864 bytes"],
  [{ type: 5 }, "sections.0.type: is not a type of SEV metadata"],
])("a manifest's SEV metadata cannot be what no firmware has: %j", (lie, sentence) => {
  const { inputs } = podVm();
  const [first, ...others] = inputs.snp?.sections ?? [];
  const { error } = measurementInputs.safeParse({
    ...inputs,
    snp: { ...inputs.snp, sections: [{ ...first, ...lie }, ...others] },
  });
  expect(error?.issues.map(({ path, message }) => `${path.slice(1).join(".")}: ${message}`)).toEqual([sentence]);
});

test("a platform without a TEE has no values, and an unknown command line is reported, not guessed", () => {
  const { inputs } = podVm();
  expect(referenceValues(inputs, { tee: "none" }).notPredictable).toHaveLength(1);
  const { commandLine: _, ...unknown } = inputs;
  expect(referenceValues(unknown, { tee: "snp" })).toMatchObject({
    snp: [],
    notPredictable: [{ name: "SNP launch digest" }],
  });
  const { notPredictable } = referenceValues(unknown, { tee: "tdx" });
  expect(notPredictable.map((each) => each.name)).toEqual(["RTMR0", "RTMR2"]);
  expect(notPredictable.at(-1)?.reason).toMatch(/not known for this Kata: give it to the lock command$/);
});

test("IGVM payloads have one value, the file's", () => {
  const igvm = vector("igvm-tooling-test_bzImage-x64-enc.igvm");
  const inputs = collectInputs({ igvm: sourceOf(igvm) });
  const files = filesOf({ igvm });
  expect(measurementInputs.parse(inputs).igvm?.policy).toBe("0x3001f");
  expect(referenceValues(inputs, { tee: "snp", models }).snp).toEqual([
    { vcpus: 1, measurement: inputs.igvm?.launchDigest },
  ]);
  expect(checkConsistency({ inputs, files, tee: "snp", ...contrast })).toEqual([]);
  expect(checkConsistency({ inputs, files, tee: "tdx", ...contrast })).toEqual([
    "The payload has an IGVM file for SEV-SNP, but the platform is TDX.",
  ]);
});

test("an IGVM file's own command line binds the rootfs image", () => {
  const made = rootfs();
  const commandLine = `${kataVerityTable(made.verityParams)} root=/dev/dm-0 rootfstype=erofs panic=1`;
  // Across the end of a page, after other text.
  const pages = Buffer.alloc(2 * 4096);
  pages.write(`other text\0${commandLine}`, 4096 - 100);
  const snp = 1;
  const dataAt = 24 + 24 + 2 * 32;
  const igvm = igvmOf(
    1,
    [
      [1, [4, snp], [1, 2], [1, 2], [2, 1], [8, 0]],
      igvmPage(0x1000, snp, 0, 0, dataAt),
      igvmPage(0x2000, snp, 0, 0, dataAt + 4096),
    ],
    pages,
  );
  const build = { flavour: "contrast-go", kataVersion: "3.2.0.azl2" };
  const guest = { rootfsType: "erofs" as const, kernelParams: "", kernelVerityParams: "" };
  const problems = (image: Buffer) => {
    const inputs = collectInputs({ igvm: sourceOf(igvm), rootfs: sourceOf(image) }, { guest });
    expect(measurementInputs.parse(inputs).igvm?.commandLine).toBe(commandLine);
    return checkConsistency({ inputs, files: filesOf({ igvm, rootfs: image }), tee: "snp", ...build, guest });
  };
  expect(problems(made.image)).toEqual([]);
  const other = rootfs({ fill: 2 });
  expect(problems(other.image)).toEqual([
    `The kernel command line (dm-mod.create) says root hash ${made.root}, but the rootfs image has ${other.root}.`,
  ]);
  const torn = Buffer.from(made.image);
  torn[64 * 512 + 5 * 4096] = 0xee;
  expect(() => problems(torn)).toThrow(/dm-verity tree does not belong to its data/);
});

test("the shapes that Contrast and Trustee take", () => {
  const values = referenceValues(podVm().inputs, { tee: "snp", models: ["EPYC-Milan"], vcpus: [1] });
  const measurement = values.snp[0]?.measurement ?? "";
  const snpTcb = [{ product: "Milan" as const, bootloader: 3, tee: 0, snp: 8, microcode: 115 }];
  const platform = "metal-qemu-snp";
  expect(contrastReferenceValues(values, { platform, guestPolicy: 0x3001fn, hosts: { snpTcb } })).toEqual({
    snp: [
      {
        ProductName: "Milan",
        TrustedMeasurement: measurement,
        MinimumTCB: { BootloaderVersion: 3, TEEVersion: 0, SNPVersion: 8, MicrocodeVersion: 115 },
        GuestPolicy: expect.objectContaining({ ABIMajor: 0, ABIMinor: 31, SMT: true, Debug: false }),
        PlatformInfo: { SMTEnabled: true },
        Platform: "Metal-QEMU-SNP",
        CPUs: 1,
      },
    ],
  });
  const trustee = trusteeReferenceValues(values, 0x30000n);
  expect(trustee.snp_launch_measurement).toEqual([measurement, Buffer.from(measurement, "hex").toString("base64")]);
  const message = trusteeMessage(trustee);
  expect(message).toMatchObject({ version: "0.1.0", type: "sample" });
  expect(JSON.parse(Buffer.from(message.payload, "base64").toString())).toEqual(trustee);
  const tdx = referenceValues(podVm().inputs, { tee: "tdx" });
  expect(Object.keys(trusteeReferenceValues(tdx, 0x30000n))).toEqual([
    "mr_td",
    "xfam",
    "rtmr_1",
    "rtmr_2",
    "rtmr_3",
    "tdvfkernel",
    "tdvfkernelparams",
  ]);
  expect(contrastReferenceValues(tdx, { platform: "metal-qemu-tdx", guestPolicy: 0x30000n })).toMatchObject({
    tdx: [{ Platform: "Metal-QEMU-TDX", MrTd: tdx.tdx[0]?.mrtd, Xfam: "e702060000000000" }],
  });
});

test("parts that belong together pass every check", () => {
  for (const tee of ["snp", "tdx", "none"] as const) {
    expect(problemsOf(podVm(), tee)).toEqual([]);
  }
  // As upstream Kata: no superblock, the runtime sets dm-verity up.
  const made = rootfs();
  const build = { flavour: "kata-go", kataVersion: "3.30.0" };
  const upstream = podVm({
    ...build,
    image: made.image,
    guest: { rootfsType: "erofs", kernelParams: "quiet", kernelVerityParams: made.verityParams },
  });
  expect(verityTarget(upstream.inputs.commandLine ?? "")).toMatchObject({
    rootHash: made.root,
    sectors: 512,
    hashStart: 0,
  });
  expect(problemsOf(upstream)).toEqual([]);
});

const other = "ff".repeat(32);
test.each([
  ["another root hash", { guest: contrastGuest(other) }, /roothash\) says root hash ffff.*but the rootfs image has/],
  [
    "another file system",
    { guest: { ...contrastGuest(rootfs().root), rootfsType: "ext4" as const } },
    /Kata's rootfs_type is ext4, but the rootfs image holds erofs/,
  ],
  [
    "another command line",
    { commandLine: `quiet roothash=${rootfs().root}` },
    /not the one that Kata 3\.31\.0 \(contrast-go\) passes: parameter 1 is measured as "quiet", but passed as "tsc=reliable"/,
  ],
  ["a truncated command line", { kernel: kernel("6.1", 255) }, /but the kernel takes 255: it would be truncated/],
  ["an unbound image", { guest: { ...contrastGuest(""), kernelParams: "quiet" } }, /Nothing binds the rootfs image/],
  [
    "verity set up twice",
    { guest: { ...contrastGuest(rootfs().root), kernelVerityParams: rootfs().verityParams } },
    /set dm-verity up twice/,
  ],
  [
    "a command line with another blank",
    { commandLine: `${passedLine(contrast, contrastGuest(rootfs().root))} ` },
    /\(contrast-go\) passes: they differ only in their blanks or quotes\.$/,
  ],
])("%s is named", (_, changes, sentence) => {
  expect(problemsOf(podVm(changes)).join("\n")).toMatch(sentence);
});

test("a dm-verity table that is not the image's is named", () => {
  const { image, verityParams } = rootfs();
  // Its own line is not known.
  const build = { flavour: "kata-rs", kataVersion: "4.2.0" };
  const table = kataVerityTable(verityParams);
  const problems = (commandLine: string) => {
    const guest = { rootfsType: "erofs" as const, kernelParams: "", kernelVerityParams: "" };
    return problemsOf(podVm({ ...build, image, commandLine, guest }));
  };
  expect(problems(table)).toEqual([]);
  expect(problems(table.replace("0 512 verity", "0 504 verity"))).toEqual([
    "The kernel command line (dm-mod.create) says sectors 504, but the rootfs image has 512.",
  ]);
  expect(() => problems(table.replace("sha256", "md5"))).toThrow(
    `The kernel command line's dm-verity table uses the algorithm "md5", expected one of sha256, sha384, sha512.`,
  );
});

test("a hash tree that ends before the file system does is named", () => {
  const vm = podVm();
  const { inputs } = vm;
  const filesystem = { type: "erofs" as const, size: 266_240 };
  const grown = { ...inputs, rootfs: { ...inputs.rootfs, filesystem } };
  expect(problemsOf(vm, "snp", grown)).toEqual([
    "The rootfs image's dm-verity tree covers 262144 bytes, but its erofs has 266240: the guest could not mount it.",
  ]);
});

test("firmware of the wrong kind is named", () => {
  const vm = podVm();
  const { inputs } = vm;
  const { snp, tdx, ...rest } = inputs;
  const check = (inputs: typeof rest, tee: "snp" | "tdx") => problemsOf(vm, tee, inputs).join("\n");
  expect(check({ ...rest, ...(tdx && { tdx }) }, "snp")).toMatch(/no SEV metadata/);
  expect(check({ ...rest, ...(snp && { snp }) }, "tdx")).toMatch(/no TDX metadata/);
  const plain = {
    ...rest,
    snp: { ...snp, sections: snp?.sections.filter((each) => each.type !== 0x10) },
  } as typeof inputs;
  expect(check(plain, "snp")).toMatch(/no place for kernel hashes/);
});

test("a hash tree that does not belong to its data stops the lock", () => {
  const { image } = rootfs({ superblock: true });
  image[64 * 512 + 5 * 4096] = 0xee;
  expect(() => podVm({ image })).toThrow(/dm-verity tree does not belong to its data: .* differ/);
});

test("a review says which values change because of which input", () => {
  const before = podVm();
  const explain = (after: typeof before, tee: "snp" | "tdx") =>
    explainChanges(measuredInputs(before.inputs, tee), measuredInputs(after.inputs, tee), tee);
  expect(explain(before, "snp")).toEqual([]);
  expect(explain(podVm({ kernel: kernel("6.18.36 (test) #2") }), "snp")).toEqual([
    expect.stringMatching(/^SNP launch digests change because of the kernel \(\w{12}… → \w{12}…\)\.$/),
  ]);
  const made = rootfs({ fill: 2, superblock: true });
  const newImage = podVm({ image: made.image, guest: contrastGuest(made.root) });
  expect(explain(newImage, "tdx")).toEqual([
    expect.stringMatching(/^RTMR2 changes because of the rootfs image \(root hash \w{12}… → \w{12}…\)\.$/),
  ]);
});

test.each([
  ["quiet debug", "quiet", "without `debug`"],
  ["quiet a=1 b", "quiet a=2 c b", "`a=1` → `a=2`, with `c`"],
  ["quiet quiet", "quiet", "without `quiet`"],
  ["a b", "b a", "the order of its parameters"],
])("of a command line the parameters that differ are shown: %s, %s", (old, now, shown) => {
  const line = (text: string) => ({ "kernel command line": text });
  expect(explainChanges(line(old), line(now), "snp", (value) => `\`${value}\``)).toEqual([
    `SNP launch digests change because of the kernel command line (${shown}).`,
  ]);
});

test("another rootfs image and other parameters are told apart", () => {
  const line = (root: string, more: string) => ({ "kernel command line": `roothash=${root.repeat(64)} ${more}` });
  expect(explainChanges(line("a", "quiet"), line("b", "debug"), "tdx")).toEqual([
    "RTMR2 changes because of the rootfs image (root hash aaaaaaaaaaaa… → bbbbbbbbbbbb…) and the kernel command line (without quiet, with debug).",
  ]);
});

test("an input that is new or no longer known is a reason, too", () => {
  expect(explainChanges({ kernel: "a" }, { initrd: "b" }, "snp")).toEqual([
    "SNP launch digests change because of the kernel (no longer known) and initrd (new).",
  ]);
});

test("a command line that is given contains the configuration's kernel_params", () => {
  const rs = { flavour: "kata-rs", kataVersion: "4.2.0" };
  const guest = { ...contrastGuest(rootfs().root), kernelParams: `roothash=${rootfs().root}  quiet ` };
  const problems = (commandLine: string) => problemsOf(podVm({ ...rs, commandLine, guest }));
  expect(problems(`console=hvc0 roothash=${rootfs().root} quiet panic=1`)).toEqual([]);
  expect(problems(`console=hvc0 roothash=${rootfs().root} quieter`)).toEqual([
    expect.stringMatching(/^The measured kernel command line does not contain the configuration's kernel_params/),
  ]);
});
