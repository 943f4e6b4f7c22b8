import { expect, test } from "vitest";
import { sha256, sha384, sourceOf, toHex } from "../../../node-installer/measure/bytes.ts";
import { explainChanges, measuredInputs } from "../../../node-installer/measure/changes.ts";
import { collectInputs } from "../../../node-installer/measure/collect.ts";
import { verityTarget } from "../../../node-installer/measure/command-line.ts";
import { checkConsistency } from "../../../node-installer/measure/consistency.ts";
import { measurementInputs } from "../../../node-installer/measure/inputs.ts";
import { kataCommandLine, kataVerityTable, withVcpus } from "../../../node-installer/measure/kata-command-line.ts";
import { readFirmware } from "../../../node-installer/measure/ovmf.ts";
import { referenceValues } from "../../../node-installer/measure/reference-values.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../../node-installer/measure/snp.ts";
import { extendRtmr, firmwareMrtd } from "../../../node-installer/measure/tdx.ts";
import {
  contrastReferenceValues,
  trusteeMessage,
  trusteeReferenceValues,
} from "../../../node-installer/measure/verifiers.ts";
import { signatureOf } from "../../../node-installer/measure/vmsa.ts";
import { contrastGuest, igvmOf, igvmPage, initrd, kernel, podVm, rootfs } from "./pod-vm.ts";
import { vector } from "./vectors.ts";

const contrast = { flavour: "contrast-go", kataVersion: "3.28.0" };
const models = ["EPYC-v4", "EPYC-Milan", "EPYC-Genoa"];

test("values from a manifest's JSON are those from the files", () => {
  const { parts, inputs } = podVm();
  const stored = measurementInputs.parse(JSON.parse(JSON.stringify(inputs)));
  const values = referenceValues(stored, { tee: "snp", models, vcpus: [1, 2, 7] });
  const launch = {
    ...firmwareLaunch(parts.firmware, readFirmware(parts.firmware)),
    guestFeatures: 1,
    kernel: {
      kernel: sha256(parts.kernel),
      initrd: sha256(parts.initrd),
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
      rtmrs: [null, null, toHex(extendRtmr(extendRtmr(Buffer.alloc(48), options), sha384(initrd))), "0".repeat(96)],
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
  expect(notPredictable.map((each) => each.name)).toEqual(["RTMR0", "RTMR1", "RTMR2"]);
  expect(notPredictable.at(-1)?.reason).toMatch(/not known for this Kata: give it to the lock command$/);
});

test("IGVM payloads have one value, the file's", () => {
  const inputs = collectInputs({ igvm: sourceOf(vector("igvm-tooling-test_bzImage-x64-enc.igvm")) }, { ...contrast });
  expect(measurementInputs.parse(inputs).igvm?.policy).toBe("0x3001f");
  expect(referenceValues(inputs, { tee: "snp", models }).snp).toEqual([
    { vcpus: 1, measurement: inputs.igvm?.launchDigest },
  ]);
  expect(checkConsistency({ inputs, tee: "snp", ...contrast })).toEqual([]);
  expect(checkConsistency({ inputs, tee: "tdx", ...contrast })).toEqual([
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
    const inputs = collectInputs({ igvm: sourceOf(igvm), rootfs: sourceOf(image) }, { ...build, guest });
    expect(measurementInputs.parse(inputs).igvm?.commandLine).toBe(commandLine);
    return checkConsistency({ inputs, tee: "snp", ...build, guest });
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
  const tcb = { bootloader: 3, tee: 0, snp: 8, microcode: 115 };
  expect(contrastReferenceValues(values, { guestPolicy: 0x3001fn, minimumTcb: tcb })).toEqual({
    snp: [
      {
        ProductName: "Milan",
        TrustedMeasurement: measurement,
        MinimumTCB: { BootloaderVersion: 3, TEEVersion: 0, SNPVersion: 8, MicrocodeVersion: 115 },
        GuestPolicy: expect.objectContaining({ ABIMajor: 0, ABIMinor: 31, SMT: true, Debug: false }),
        PlatformInfo: { SMTEnabled: true },
      },
    ],
  });
  const trustee = trusteeReferenceValues(values, 0x30000n);
  expect(trustee.snp_launch_measurement).toEqual([measurement, Buffer.from(measurement, "hex").toString("base64")]);
  const message = trusteeMessage(trustee);
  expect(message).toMatchObject({ version: "0.1.0", type: "sample" });
  expect(JSON.parse(Buffer.from(message.payload, "base64").toString())).toEqual(trustee);
  const tdx = referenceValues(podVm().inputs, { tee: "tdx" });
  expect(Object.keys(trusteeReferenceValues(tdx, 0x30000n))).toEqual(["mr_td", "xfam", "rtmr_2", "rtmr_3"]);
  expect(contrastReferenceValues(tdx, { guestPolicy: 0x30000n })).toMatchObject({
    tdx: [{ MrTd: tdx.tdx[0]?.mrtd, Xfam: "e702060000000000" }],
  });
});

test("parts that belong together pass every check", () => {
  const { inputs, guest } = podVm();
  for (const tee of ["snp", "tdx", "none"] as const) {
    expect(checkConsistency({ inputs, tee, ...contrast, guest })).toEqual([]);
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
  expect(checkConsistency({ ...upstream, ...build, tee: "snp" })).toEqual([]);
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
    /not the one that Kata 3\.28\.0 \(contrast-go\) passes: parameter 1 is measured as "quiet", but passed as "tsc=reliable"/,
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
    { commandLine: `${kataCommandLine(contrast, contrastGuest(rootfs().root))} ` },
    /\(contrast-go\) passes: they differ only in their blanks or quotes\.$/,
  ],
])("%s is named", (_, changes, sentence) => {
  const { inputs, guest } = podVm(changes);
  expect(checkConsistency({ inputs, tee: "snp", ...contrast, guest }).join("\n")).toMatch(sentence);
});

test("a dm-verity table that is not the image's is named", () => {
  const { image, verityParams } = rootfs();
  const build = { flavour: "kata-rs", kataVersion: "4.1.0" };
  const table = kataVerityTable(verityParams);
  const problems = (commandLine: string) => {
    const guest = { rootfsType: "erofs" as const, kernelParams: "", kernelVerityParams: "" };
    return checkConsistency({ ...podVm({ ...build, image, commandLine, guest }), tee: "snp", ...build, guest });
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
  const { inputs, guest } = podVm();
  const filesystem = { type: "erofs" as const, size: 266_240 };
  const grown = { ...inputs, rootfs: { ...inputs.rootfs, filesystem } };
  expect(checkConsistency({ inputs: grown, tee: "snp", ...contrast, guest })).toEqual([
    "The rootfs image's dm-verity tree covers 262144 bytes, but its erofs has 266240: the guest could not mount it.",
  ]);
});

test("firmware of the wrong kind is named", () => {
  const { inputs, guest } = podVm();
  const { snp, tdx, ...rest } = inputs;
  const check = (inputs: typeof rest, tee: "snp" | "tdx") =>
    checkConsistency({ inputs, tee, ...contrast, guest }).join("\n");
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

test("Kata's command line, as measured for Contrast", () => {
  expect(kataCommandLine(contrast, contrastGuest("00"))).toBe(
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 root=/dev/vda1 rootflags=ro rootfstype=erofs console=hvc0 console=hvc1 quiet systemd.show_status=false panic=1 selinux=0 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none init=/nix/store/x/init roothash=00 cgroup_no_v1=all",
  );
  for (const build of [
    { flavour: "kata-rs", kataVersion: "4.1.0" },
    { ...contrast, kataVersion: "5.0.0" },
    { ...contrast, kataVersion: "none" },
  ]) {
    expect(kataCommandLine(build, contrastGuest("00"))).toBeUndefined();
  }
});

test("Kata passes on kernel_params as it parsed them", () => {
  const passed = (kernelParams: string) =>
    kataCommandLine(contrast, { ...contrastGuest("00"), kernelParams })?.split(" scsi_mod.scan=none")[1];
  expect(passed("")).toBe("");
  expect(passed(' quiet  a="b  c"\n x= "d  e=f" =g  = k== ')).toBe(' quiet a="b  c" x "d  e=f" g k==');
  // If the whole command line is not known, it must contain all of them.
  const rs = { flavour: "kata-rs", kataVersion: "4.1.0" };
  const guest = { ...contrastGuest(rootfs().root), kernelParams: `roothash=${rootfs().root}  quiet ` };
  const problems = (commandLine: string) =>
    checkConsistency({ ...podVm({ ...rs, commandLine, guest }), tee: "snp", ...rs, guest });
  expect(problems(`console=hvc0 roothash=${rootfs().root} quiet panic=1`)).toEqual([]);
  expect(problems(`console=hvc0 roothash=${rootfs().root} quieter`)).toEqual([
    expect.stringMatching(/^The measured kernel command line does not contain the configuration's kernel_params/),
  ]);
});

/** The command line of a running guest of upstream Kata and the RTMR2 in the quote that Intel's hardware signed for it. */
const quoted = {
  verity:
    "root_hash=768cd7e848f6cb7eb4f59467b26ee5c5e45ece570cb96a5c952d97dbc89bb150,salt=63f8dacc786bd19f307be8668c7792a8fe07818df4aae55b63e76c4931d35c76,data_blocks=96512,data_block_size=4096,hash_block_size=4096",
  commandLine:
    'tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 dm-mod.create="dm-verity,,,ro,0 772096 verity 1 /dev/vda1 /dev/vda2 4096 4096 96512 0 sha256 768cd7e848f6cb7eb4f59467b26ee5c5e45ece570cb96a5c952d97dbc89bb150 63f8dacc786bd19f307be8668c7792a8fe07818df4aae55b63e76c4931d35c76" root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4 console=hvc0 console=hvc1 quiet systemd.show_status=false panic=1 nr_cpus=1 selinux=0 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none agent.launch_process_timeout=6 cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1',
  rtmr2: "b595f9f179d8b699d1420000d36c1fba82e9853545e719caa6ddbb82fa2041a23b4459876af4a253a1c20c5956529b9a",
};

test("upstream Kata's command line and RTMR2 are those of a TDX quote, and differ by vCPU count", () => {
  const guest = {
    rootfsType: "ext4" as const,
    kernelParams: "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
    kernelVerityParams: quoted.verity,
  };
  const commandLine = kataCommandLine({ flavour: "kata-go", kataVersion: "3.30.0" }, guest) ?? "";
  expect(withVcpus(commandLine, 1)).toBe(quoted.commandLine);
  const { initrd: _, ...inputs } = podVm().inputs;
  const { tdx } = referenceValues({ ...inputs, commandLine }, { tee: "tdx", vcpus: [1, 2] });
  expect(tdx.map((row) => [row.vcpus, row.rtmrs[2] === quoted.rtmr2])).toEqual([
    [1, true],
    [2, false],
  ]);
  // For SNP, too, a row of the table is what the command line with that count gives.
  const { snp } = referenceValues({ ...inputs, commandLine }, { tee: "snp", vcpus: [1, 3] });
  for (const row of snp) {
    const fixed = { ...inputs, commandLine: withVcpus(commandLine, row.vcpus) };
    expect(referenceValues(fixed, { tee: "snp", vcpus: [row.vcpus] }).snp).toEqual([row]);
  }
});
