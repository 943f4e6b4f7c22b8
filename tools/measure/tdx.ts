import { readFirmware } from "../../measure/ovmf.ts";
import { firmwareMrtd, rtmrs } from "../../measure/tdx.ts";
import { digestOf, readWhole } from "./files.ts";

/** MRTD in both page orders, and the RTMRs that these inputs define. An empty initrd counts as absent. */
export function tdx(guest: { ovmf: string; initrd?: string | undefined; append?: string | undefined }): object {
  const bytes = readWhole(guest.ovmf);
  const firmware = readFirmware(bytes);
  const registers = rtmrs({
    ...(guest.append === undefined ? {} : { commandLine: guest.append }),
    ...(guest.initrd ? { initrdSha384: digestOf(guest.initrd, "sha384") } : {}),
  });
  return {
    mrtd: firmwareMrtd(bytes, firmware, "single-pass"),
    mrtdTwoPass: firmwareMrtd(bytes, firmware, "two-pass"),
    rtmrs: registers.values,
    notPredictable: registers.notPredictable,
  };
}
