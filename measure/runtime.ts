import { deriveSpec, type RuntimeChoice } from "../runtime/derive.ts";
import {
  type GuestSize,
  hypervisorOf,
  type KataConfiguration,
  sizeBeyondLimits,
} from "../runtime/kata-configuration.ts";
import type { KataChanges } from "../runtime/kata-overrides.ts";
import type { Manifest } from "../runtime/manifest.ts";
import type { MeasurementInputs } from "../runtime/measurement-inputs.ts";
import { type Platform, platforms } from "../runtime/platforms.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { RuntimeSpec } from "../runtime/spec.ts";
import { bindsRootfs, kataCommandLine } from "./kata-kernel-command-line.ts";
import { checkConsistency, withCommandLine } from "./payload-consistency.ts";

/** A runtime that may be installed: what nodes get, and what its guests' launch measurements are computed from. */
export interface MeasuredRuntime extends RuntimeChoice {
  spec: RuntimeSpec;
  beyondLimits: GuestSize;
  /**
   * The manifest's inputs, with the command line that Kata makes of the configuration that is rendered, where that is known.
   * Absent if the manifest says nothing of measurements.
   */
  inputs?: MeasurementInputs;
}

/**
 * Derives a runtime and checks that its parts make a guest that is bound to its launch measurement. Pure. Throws `Refusal`
 * where the payload cannot serve the platform.
 */
export function measuredRuntime({ changes, guestRegistry, ...locked }: RuntimeChoice): MeasuredRuntime {
  const { platform: name, manifest } = locked;
  const platform = platforms[name];
  const { spec, configuration } = deriveSpec({ ...locked, changes, guestRegistry });
  checkBinding(platform, manifest, configuration);
  // Its parts belong together or not, whatever is set.
  const plain = changes === undefined ? configuration : deriveSpec(locked).configuration;
  checkMeasurement(platform, manifest, kataCommandLine(manifest, plain));
  const { measurement } = manifest;
  const runtime = { platform: name, manifest, changes, spec, beyondLimits: sizeBeyondLimits(configuration) };
  if (measurement === undefined) return runtime;
  const passed = kataCommandLine(manifest, configuration);
  const given = changes?.otherRtmr0 ? withoutRtmr0(measurement) : measurement;
  const inputs = withCommandLine(isStillLine(given, changes) ? given : withoutLine(given), passed);
  checkLength(manifest, inputs);
  return { ...runtime, inputs };
}

const withoutLine = ({ commandLine, ...rest }: MeasurementInputs): MeasurementInputs => rest;

/** What was taken from a guest without the settings is the value of no guest with them. */
function withoutRtmr0({ tdx, ...rest }: MeasurementInputs): MeasurementInputs {
  if (tdx === undefined) return rest;
  const { rtmr0: _, ...computed } = tdx;
  return { ...rest, tdx: computed };
}

/** Whether a line that was given to the lock command is the one that guests get, although something is set. */
function isStillLine({ commandLine = "" }: MeasurementInputs, changes: KataChanges | undefined): boolean {
  if (changes === undefined || changes.commandLine === "same") return true;
  const words = commandLine.split(" ");
  return changes.commandLine === "longer" && changes.kernelParams.every((word) => words.includes(word));
}

/** Settings may make the line longer than the kernel takes. */
function checkLength({ name }: Manifest, { commandLine = "", kernel }: MeasurementInputs): void {
  const [limit, length] = [kernel?.commandLineLimit, Buffer.byteLength(commandLine)];
  if (limit !== undefined && length > limit)
    throw new Refusal(
      "command-line-too-long",
      `With these settings the kernel command line of payload ${name} has ${length} bytes, but its kernel takes ${limit}: set fewer kernel parameters.`,
    );
}

/** What nodes get of a runtime; see measuredRuntime. */
export const deriveRuntime = (runtime: RuntimeChoice): RuntimeSpec => measuredRuntime(runtime).spec;

/** A guest that takes any root file system is not confidential. An IGVM file binds its own. */
function checkBinding({ vmm, tee }: Platform, manifest: Manifest, configuration: KataConfiguration): void {
  if (tee === "none") return;
  const { name, kataVersion, flavour, guest } = manifest;
  const given = guest?.kernelVerityParams;
  if (given && hypervisorOf(configuration).kernel_verity_params !== given)
    throw new Refusal(
      "kata-too-old",
      `Kata ${kataVersion} (${flavour}) does not know kernel_verity_params, which binds the guest image of payload ${name} to the launch measurement: guests would take any root file system. ${vmm === "qemu" ? "Lock a newer payload." : "Lock it without: an IGVM file binds its own image."}`,
    );
  const open = guest?.extensions?.find(({ verityParams }) => verityParams === "");
  if (open !== undefined)
    throw new Refusal(
      "unbound-image",
      `Nothing binds the extension ${open.name} of payload ${name}'s guest image (${open.path}) to the launch measurement: it has no verityParams. Lock it again with what the image's builder published.`,
    );
  if (vmm === "qemu" && !bindsRootfs(configuration))
    throw new Refusal(
      "unbound-image",
      `Nothing binds the guest image of payload ${name} to the launch measurement: neither guest.kernelParams (such as roothash=…) nor guest.kernelVerityParams names its root hash. Lock it again with what the image's builder published.`,
    );
}

/** What the lock command read from the files must be a guest that boots and measures as its reference values say. */
function checkMeasurement({ tee }: Platform, manifest: Manifest, passed: string | undefined): void {
  const { name, measurement, files, guest, flavour, kataVersion } = manifest;
  if (measurement === undefined || tee === "none") return;
  const problems = checkConsistency({ inputs: measurement, tee, files, guest, passed, flavour, kataVersion });
  if (problems.length > 0)
    throw new Refusal(
      "inconsistent-payload",
      `The parts of payload ${name} do not belong together. ${problems.join(" ")} Lock it again with parts of the same build.`,
    );
}
