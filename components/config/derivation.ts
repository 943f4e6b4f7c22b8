import { launchValues } from "../../measure/launch-values.ts";
import { type MeasuredRuntime, measuredRuntime } from "../../measure/runtime.ts";
import { type Assessment, assess, explainOpen } from "../../runtime/advisories.ts";
import { judgeSettings, type RuntimeSettings } from "../../runtime/kata-overrides.ts";
import type { Manifest } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { DistributionName, PlatformName, RuntimeSpec } from "../../runtime/spec.ts";
import type { Mistake } from "./mistakes.ts";

/** A runtime as it was given, and what becomes of it. */
export interface Derived<Given> extends MeasuredRuntime {
  given: Given;
  /** What a verifier will see of a guest with two vCPUs. */
  launch: Record<string, string>;
  /** What is set beyond platform and payload, a sentence each, without and with what weakens the guest. */
  settings: string[];
  weakened: string[];
  /** The known holes of its Kata: each is acknowledged or closed, or the runtime would have been refused. */
  assessment: Assessment;
}

export interface GivenRuntime extends RuntimeSettings {
  platform: PlatformName;
  manifest: Manifest;
  acknowledgedAdvisories: string[];
  /** Of its group; see RuntimeChoice. */
  distribution?: DistributionName | undefined;
}

/** Where a runtime stands, and how its user writes what mistakes speak of. */
export interface RuntimeTerms {
  /** Path of the runtime. */
  key: string;
  /** The key of its manifest. */
  manifest: string;
  /** The payload, as the subject of "holds Kata 3.28.0". */
  payload: string;
  /** What "cannot be used" follows. */
  unusable: string;
  /** Guests are told how to reach registries. */
  guestRegistry?: boolean;
  /** The list of acknowledged advisories with these ids. */
  acknowledging(ids: string[]): string;
}

/**
 * Derives a runtime, the one place that does. One that cannot be used is undefined and among the mistakes: a payload that
 * cannot serve its platform, or that makes a guest whose measurements cannot be computed, which cannot be attested either.
 */
export function derive<Given extends GivenRuntime>(
  given: Given,
  terms: RuntimeTerms,
  mistakes: Mistake[],
): Derived<Given> | undefined {
  const { key, manifest } = terms;
  const { changes, settings, weakened, mistakes: wrong } = judgeSettings(given, given);
  mistakes.push(...wrong.map(({ path, message }) => ({ key: `${key}.${path}`, message })));
  try {
    const { platform, distribution } = given;
    const { guestRegistry } = terms;
    const runtime = measuredRuntime({ platform, manifest: given.manifest, distribution, changes, guestRegistry });
    if (runtime.spec.imagePuller !== undefined) settings.push(toldOnNode);
    const launch = launchValues(runtime);
    const assessment = assess(given, given.acknowledgedAdvisories);
    mistakes.push(...advisoryMistakes(given.manifest, assessment, terms));
    return { ...runtime, given, launch, settings, weakened, assessment };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    mistakes.push({ key: `${key}.${manifest}`, message: `${terms.unusable}cannot be used: ${error.message}` });
    return undefined;
  }
}

/** Of the runtimes of a group what its install spec says. */
export const specsOf = (
  runtimes: readonly Pick<Derived<unknown>, "spec" | "assessment">[],
): { runtimes: RuntimeSpec[]; advisories: Record<string, string[]> } => ({
  runtimes: runtimes.map(({ spec }) => spec),
  advisories: Object.fromEntries(
    runtimes.flatMap(({ spec, assessment: { acknowledged } }) =>
      acknowledged.length === 0 ? [] : [[spec.handler, acknowledged.map(({ id }) => id).sort()]],
    ),
  ),
});

const toldOnNode =
  "The image puller of its guests reads registries, logins and proxies from a file of the node, as the stack's registry.guest says: nothing in it is measured.";

/** A payload with a known hole is used only where the user says that this is known. */
function advisoryMistakes({ kataVersion }: Manifest, { open, mistakes }: Assessment, terms: RuntimeTerms): Mistake[] {
  const { key, payload } = terms;
  const holes = () => explainOpen(open, (ids) => `add ${terms.acknowledging(ids)} to the runtime`);
  return [
    ...(open.length > 0
      ? [
          {
            key: `${key}.${terms.manifest}`,
            message: `${payload} holds Kata ${kataVersion}, which has known holes. ${holes()}`,
          },
        ]
      : []),
    ...mistakes.map(({ index, message }) => ({ key: `${key}.acknowledgedAdvisories[${index}]`, message })),
  ];
}
