import type { ByteSource } from "../../measure/bytes.ts";
import { collectInputs } from "../../measure/collect-inputs.ts";
import { referenceValues } from "../../measure/reference-values.ts";
import { withFile } from "../files/byte-source.ts";

export interface TdxGuest {
  ovmf: string;
  kernel?: string | undefined;
  /** An empty one counts as absent. */
  initrd?: string | undefined;
  append?: string | undefined;
  qemu?: string | undefined;
}

/** MRTD in both page orders, and the RTMRs and event digests that these inputs define. */
export function tdx({ ovmf, kernel, initrd, append, qemu }: TdxGuest): object {
  const inputs = {
    ...withFiles({ firmware: ovmf, kernel, initrd, vmm: qemu }, (files) => collectInputs(files)),
    ...(append === undefined ? {} : { commandLine: append }),
  };
  const { tdx, notPredictable } = referenceValues(inputs, { tee: "tdx", vcpus: [1] });
  const [{ rtmrs, events } = { rtmrs: [], events: {} }] = tdx;
  const given = Boolean(kernel) && Boolean(qemu);
  return {
    mrtd: inputs.tdx?.mrtd.singlePass,
    mrtdTwoPass: inputs.tdx?.mrtd.twoPass,
    rtmrs,
    events,
    notPredictable: notPredictable.map(({ name, reason }) => ({
      name,
      reason:
        name === "RTMR1" && !given
          ? "covers the kernel and how QEMU passes it on: give --kernel and --qemu"
          : name === "RTMR2"
            ? "covers the kernel command line, which is not given"
            : reason,
    })),
  };
}

type Files<Name extends string> = Partial<Record<Name, ByteSource>>;

/** Opens those that are named, all at once. */
function withFiles<Name extends string, Result>(
  paths: Partial<Record<Name, string | undefined>>,
  use: (files: Files<Name>) => Result,
): Result {
  const named = (Object.entries(paths) as [Name, string | undefined][]).filter(([, path]) => path);
  const open = ([next, ...others]: typeof named, files: Files<Name>): Result =>
    next ? withFile(next[1] ?? "", (source) => open(others, { ...files, [next[0]]: source })) : use(files);
  return open(named, {});
}
