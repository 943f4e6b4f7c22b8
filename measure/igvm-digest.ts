import { Refusal } from "../runtime/refusal.ts";
import { FormatError, sha384, toHex } from "./bytes.ts";
import { type Igvm, type IgvmIdBlock, igvmPageFlag, igvmPageType, igvmPlatformType } from "./igvm.ts";
import { LaunchDigest, pageType } from "./snp.ts";

/** A file with more parameter memory than this is refused: real ones insert a few pages, and each page costs a hash. */
const largestParameterMemory = 1 << 30;
const zeroPage = sha384(Buffer.alloc(4096));

export interface IgvmMeasurement {
  /** 48 bytes, hex. */
  launchDigest: string;
  /** The SNP guest policy that the file asks for. */
  policy?: bigint;
  /** The ID block that the file carries, and whether its launch digest is the one computed. */
  idBlock?: IgvmIdBlock & { matches: boolean };
  /** vCPUs whose save areas are in the file. */
  vcpus: number;
  /** The kernel command line in the file's pages, if it maps the root file system with dm-verity. */
  commandLine?: string;
}

/**
 * The SEV-SNP launch digest of an IGVM file: its directives in file order (microsoft/igvm, measurement of SNP). Shared
 * pages are not part of it; a page without data is a measured page of zeroes; parameter pages are unmeasured; a VP
 * context is a VMSA page at the file's own address.
 */
export function measureIgvm(igvm: Igvm): IgvmMeasurement {
  const platform = igvm.platforms.find((each) => each.type === igvmPlatformType.sevSnp);
  if (platform === undefined) {
    const found = igvm.platforms.map((each) => each.type).join(", ") || "none";
    throw new Refusal(
      "igvm-without-snp",
      `The IGVM file does not support SEV-SNP (platform type 2); it supports: ${found}.`,
    );
  }
  const digest = new LaunchDigest();
  const areas = new Map<number, number>();
  const text = new CommandLineSearch();
  let parameterMemory = 0;
  let vcpus = 0;
  for (const header of igvm.headers()) {
    if (header.kind === "other") continue;
    if (header.kind === "parameter-area") {
      areas.set(header.index, header.size);
      continue;
    }
    if ((header.mask & platform.mask) === 0) continue;
    if (header.kind === "page") {
      measurePage(digest, header);
      text.page(header);
    } else if (header.kind === "vp-context") {
      vcpus += 1;
      digest.page(pageType.vmsa, header.gpa, sha384(wholePage(header.data)));
    } else {
      const size = areas.get(header.index);
      if (size === undefined) {
        throw new FormatError(
          "IGVM file",
          header.offset,
          `inserts parameter area ${header.index}, which is not declared or already used`,
        );
      }
      areas.delete(header.index);
      parameterMemory += size;
      if (parameterMemory > largestParameterMemory) {
        throw new FormatError(
          "IGVM file",
          header.offset,
          `inserts ${parameterMemory} bytes of parameters, more than any guest has`,
        );
      }
      for (let at = 0; at < size; at += 4096) digest.page(pageType.unmeasured, header.gpa + BigInt(at));
    }
  }
  const policy = igvm.policies.find((each) => (each.mask & platform.mask) !== 0);
  const idBlock = igvm.idBlocks.find((each) => (each.mask & platform.mask) !== 0);
  const launchDigest = toHex(digest.value());
  return {
    launchDigest,
    vcpus,
    ...(policy === undefined ? {} : { policy: policy.policy }),
    ...(text.found === undefined ? {} : { commandLine: text.found }),
    ...(idBlock === undefined ? {} : { idBlock: { ...idBlock, matches: idBlock.launchDigest === launchDigest } }),
  };
}

function measurePage(
  digest: LaunchDigest,
  page: { offset: number; gpa: bigint; flags: number; type: number; data?: Uint8Array },
): void {
  if ((page.flags & igvmPageFlag.shared) !== 0) return;
  if ((page.flags & igvmPageFlag.large) !== 0) {
    throw new FormatError(
      "IGVM file",
      page.offset,
      "has a 2 MiB page, whose SNP measurement is not defined by the format",
    );
  }
  if (page.type === igvmPageType.secrets) digest.page(pageType.secrets, page.gpa);
  else if (page.type !== igvmPageType.normal) digest.page(pageType.cpuid, page.gpa);
  else if ((page.flags & igvmPageFlag.unmeasured) !== 0) digest.page(pageType.unmeasured, page.gpa);
  else digest.page(pageType.normal, page.gpa, page.data === undefined ? zeroPage : sha384(page.data));
}

/**
 * No header says where the kernel's command line is: it is NUL-terminated text in some page (microsoft/igvm-tooling). It is
 * recognized by the dm-verity table that Kata's images for Cloud Hypervisor have in it; any of them fits in two pages.
 */
class CommandLineSearch {
  found?: string;
  /** The previous page, or zeroes if that one is not adjacent, and the current page. */
  readonly #pages = Buffer.alloc(2 * 4096);
  #end?: bigint;

  page({ gpa, flags, data }: { gpa: bigint; flags: number; data?: Uint8Array }): void {
    if (data === undefined || (flags & (igvmPageFlag.shared | igvmPageFlag.unmeasured)) !== 0) return;
    const pages = this.#pages;
    if (gpa === this.#end) pages.copyWithin(0, 4096);
    else pages.fill(0, 0, 4096);
    pages.set(data, 4096);
    this.#end = gpa + 4096n;
    const at = pages.indexOf("dm-mod.create=");
    const end = at < 0 ? -1 : pages.indexOf(0, at);
    if (end < 0) return;
    const line = pages.toString("utf8", pages.lastIndexOf(0, at) + 1, end);
    if (line.includes(" verity ")) this.found ??= line;
  }
}

/** A save area may be the last thing in a file and shorter than its page. */
function wholePage(data: Uint8Array): Uint8Array {
  if (data.length === 4096) return data;
  const page = Buffer.alloc(4096);
  page.set(data);
  return page;
}
