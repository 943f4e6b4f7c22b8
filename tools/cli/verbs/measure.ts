import { InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { mostVcpus } from "../../../measure/snp.ts";
import { cpuSignatures, vmms } from "../../../measure/vmsa.ts";
import { verityAlgorithms } from "../../../runtime/measurement-inputs.ts";
import { platformNames } from "../../../runtime/spec.ts";
import { Verb } from "../command.ts";
import {
  between,
  blockSize,
  each,
  eachHex,
  hexDigits,
  kataSetting,
  number,
  rtmr0,
  snpTcb,
  vcpuCounts,
} from "../values.ts";

/** Also a program of its own, tools/measure/main.ts. */
export const verb = () =>
  new Verb("measure")
    .description("Computes what a confidential VM will be attested with. Prints JSON.")
    .addCommand(snp())
    .addCommand(tdx())
    .addCommand(igvm())
    .addCommand(verity())
    .addCommand(initdata())
    .addCommand(manifest())
    .addCommand(layers());

const print = (value: object) => console.log(JSON.stringify(value, null, 2));

const snp = () =>
  new Verb("snp")
    .description("The launch digest of an SEV-SNP guest; options as sev-snp-measure has them.")
    .requiredOption("--ovmf <file>", "the firmware")
    .requiredOption("--vcpus <number>", "how many vCPUs the guest has", between(1, mostVcpus))
    .addOption(new Option("--vcpu-type <model>", "the emulated CPU").choices(Object.keys(cpuSignatures)))
    .option("--vcpu-sig <number>", "the CPU's signature instead", number)
    .option("--vcpu-family <number>", "with --vcpu-model and --vcpu-stepping, instead", number)
    .option("--vcpu-model <number>", "see --vcpu-family", number)
    .option("--vcpu-stepping <number>", "see --vcpu-family", number)
    .option("--kernel <file>", "the guest's kernel, where the firmware checks it")
    .option("--initrd <file>", "with --kernel")
    .option("--append <text>", "the kernel's command line, quoted as one word; with --kernel")
    .option("--guest-features <number>", "the guest's SEV features", number, 1)
    .addOption(new Option("--vmm-type <name>", "the VMM").choices(vmms).default("QEMU"))
    .option("--snp-ovmf-hash <hex>", "the firmware's digest, where it was measured before", firmwareDigest)
    .addOption(new Option("--mode <mode>", "what sev-snp-measure calls it").choices(["snp"]))
    .action(async (guest) => print((await import("../../measure/snp.ts")).snp(guest)));

const firmwareDigest = (text: string): string => (text === "" ? "" : hexDigits(96)(text));

const tdx = () =>
  new Verb("tdx")
    .description("MRTD in both page orders, and the RTMRs and digests of events that these inputs define.")
    .requiredOption("--ovmf <file>", "the firmware")
    .option("--append <text>", "the kernel's command line, quoted as one word")
    .option("--initrd <file>", "with --append")
    .option("--kernel <file>", "the guest's kernel; with --qemu")
    .option("--qemu <file>", "the VMM, which passes the kernel on as it is, or patched; with --kernel")
    .action(async (guest) => print((await import("../../measure/tdx.ts")).tdx(guest)));

const igvm = () =>
  new Verb("igvm")
    .description("The SEV-SNP launch digest of an IGVM file, and whether its ID block agrees.")
    .argument("[file]", "the IGVM file")
    .option("--igvm <file>", "the same")
    .action(async (file, options, command) => {
      if (file !== undefined && options.igvm !== undefined)
        return command.error("Give the IGVM file once: as a word, or by --igvm.");
      const given = file ?? options.igvm;
      if (given === undefined) return command.error("The IGVM file is missing.");
      print((await import("../../measure/igvm.ts")).igvm(given));
    });

const verity = () =>
  new Verb("verity")
    .description(
      `The dm-verity root hash of a file; with TREE also writes the hash device. Options as veritysetup's, but nothing is
random: without --salt there is none, and the superblock of a TREE needs --uuid.`,
    )
    .argument("<data>", "the data file")
    .argument("[tree]", "the hash device to write")
    .option("--salt <hex>", "- or nothing: none", salt, "")
    .addOption(new Option("--hash <name>", "the algorithm").choices(verityAlgorithms).default("sha256"))
    .option("--data-block-size <bytes>", "of the data", blockSize, 4096)
    .option("--hash-block-size <bytes>", "of the tree", blockSize, 4096)
    .option("--no-superblock", "begin TREE with the hash tree itself")
    .option("--uuid <uuid>", "of the superblock")
    .action(async (data, tree, options) =>
      print((await import("../../measure/verity.ts")).verity(data, tree, options)),
    );

function salt(text: string): string {
  const digits = text === "-" ? "" : text;
  if (/^([0-9a-f]{2})*$/i.test(digits)) return digits;
  throw new InvalidArgumentError("It must be hex digits, two for each byte.");
}

const initdata = () =>
  new Verb("initdata")
    .description(
      `Digest, HOSTDATA, MRCONFIGID and annotation of an initdata document, or the digest of a policy. FILE may be the disk,
too, by which Kata hands the document to the guest.`,
    )
    .argument("[file]", "the initdata document")
    .addOption(new Option("--decode <annotation>", "the document is in this annotation").conflicts("policy"))
    .option("--policy <file>", "a policy instead")
    .action(async (file, { decode, policy }, command) => {
      const given = [file, decode, policy].filter((each) => each !== undefined);
      if (given.length !== 1) command.error("Give one of an initdata document, --decode and --policy.");
      const measures = await import("../../measure/initdata.ts");
      if (file !== undefined) print(measures.initdata(file));
      if (decode !== undefined) print(measures.decoded(decode));
      if (policy !== undefined) print(measures.policy(policy));
    });

const manifest = () =>
  new Verb("manifest")
    .description(
      `A payload's reference values from its manifest alone; of several, such as an upgrade's old and new one, together, as
verifiers take them.`,
    )
    .argument("<manifests...>", "the payloads' manifests")
    .addOption(new Option("--platform <name>", "of the runtime").choices(platformNames).makeOptionMandatory())
    .option("--vcpus <counts>", "such as 2, 1-8 or 1,4-6 (default: 1-8)", vcpuCounts)
    .addOption(
      new Option(
        "--for <shape>",
        "a table, Contrast's manifest, Trustee's reference values, the message that rvps-tool registers, or an unsigned CoRIM (SEV-SNP; CBOR, for a file)",
      )
        .choices(["table", "contrast", "trustee", "rvps", "corim"])
        .default("table"),
    )
    .option(
      "--kata <table.key=value>",
      "a key of Kata that the runtime sets, such as hypervisor.default_memory=1024",
      kataSetting,
      [],
    )
    .option("--acknowledge-weakening <name>", "a setting that weakens guests and is wanted all the same", each, [])
    .option("--rtmr0 <count=value>", "RTMR0 of TDX guests with so many vCPUs", rtmr0, [])
    .option(
      "--snp-tcb <parts>",
      `security versions of SEV-SNP hosts: bootloader=N,tee=N,snp=N,microcode=N, after "Milan:" or "Genoa:" if they are only
of these`,
      snpTcb,
      [],
    )
    .addOption(onOff("--smt <state>", "whether SEV-SNP hosts have multithreading on"))
    .addOption(onOff("--tsme <state>", "whether SEV-SNP hosts have transparent memory encryption on"))
    .option("--chip-id <hex>", "accept SEV-SNP reports of this chip only", eachHex(128), [])
    .option("--mitigation-vector <number>", "mitigations that SEV-SNP hosts must have", number)
    .option("--mr-seam <hex>", "measurement of an accepted TDX module", eachHex(96), [])
    .option("--tdx-tcb-svn <hex>", "TEE_TCB_SVN of accepted TDX hosts", eachHex(32), [])
    .action(async (files, wanted, command) => {
      if (wanted.for === "corim" && process.stdout.isTTY)
        command.error("A CoRIM is CBOR, which is not for a terminal: append > FILE.");
      const { values, notes } = await (await import("../../measure/manifest.ts")).manifestValues(files, wanted);
      for (const note of notes) console.error(note);
      if (values instanceof Uint8Array) process.stdout.write(values);
      else print(values);
    });

const onOff = <Flags extends string>(flags: Flags, description: string) =>
  new Option(flags, description).choices(["on", "off"] as const);

const layers = () =>
  new Verb("layers")
    .description(
      `The dm-verity root hash of each layer, as tardev-snapshotter of AKS computes it (releases 3.2.0.azl1 to azl5).`,
    )
    .argument("<image>", "registry/repository@sha256:…, or a directory or archive (OCI layout, docker save)")
    .option("--ca <file>", "certificate of the registry's authority (PEM)")
    .action(async (image, { ca }) => print(await (await import("../../measure/layers.ts")).layers(image, ca)));
