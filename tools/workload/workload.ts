import { measuredRuntime } from "../../measure/runtime.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { DistributionName, PlatformName } from "../../runtime/spec.ts";
import { parseInitdata } from "../../workload/initdata.ts";
import { type KnownImage, type Manifests, prepareManifests, readManifests } from "../../workload/manifests.ts";
import type { PolicyOptIns } from "../../workload/policy/pod-policy.ts";
import { isCovered } from "../../workload/policy-of-pod.ts";
import { readManifest } from "../files/manifest.ts";
import { namedCa, namedText } from "../files/named-file.ts";
import { imageLayers } from "../lock/image-layers.ts";
import { configuredImage, type ImageSource, imageReference } from "../oci/image-configuration.ts";
import type { Progress } from "../process/progress.ts";
import { type ChosenRuntime, runtimeOfStack } from "./stack-runtime.ts";

export interface WorkloadCommand {
  files: readonly string[];
  stack?: string | undefined;
  handler?: string | undefined;
  platform?: PlatformName | undefined;
  payload?: string | undefined;
  distribution?: DistributionName | undefined;
  namespace?: string | undefined;
  /** A file. */
  initdata?: string | undefined;
  allow: PolicyOptIns;
  acknowledge: readonly string[];
  json?: boolean | undefined;
  /** A file. */
  ca?: string | undefined;
  /** Registries without TLS. */
  plainHttp: readonly string[];
}

/** What the command does beside computing. */
export interface Surroundings {
  stdin: () => Promise<string>;
  progress: Progress;
  /** Where images' documents are kept; by default in the cache. */
  directory?: string;
}

/**
 * Makes the pods of Kubernetes manifests ready for a runtime.
 *
 * @returns what belongs on standard output: the manifests, or with `json` a row for each workload
 */
export async function workload(
  command: WorkloadCommand,
  { stdin, progress, directory }: Surroundings,
): Promise<{ output: string; notes: string[] }> {
  const chosen = await chooseRuntime(command);
  const given = await Promise.all(
    command.files.map(async (name) =>
      name === "-"
        ? { name: "standard input", text: await stdin() }
        : { name, text: await namedText("manifest", name) },
    ),
  );
  const manifests = readManifests(given, command.namespace);
  const { initdata, ca } = command;
  const document = initdata === undefined ? undefined : parseInitdata(await namedText("initdata", initdata));
  const known = await imagesOf(manifests, chosen, {
    ca: ca === undefined ? undefined : await namedCa(ca),
    plainHttp: command.plainHttp,
    users: makesPolicies(command, chosen, document?.data["policy.rego"]),
    progress,
    ...(directory !== undefined && { directory }),
  });
  const { texts, pods, notes } = prepareManifests(manifests, chosen.runtime, known, {
    ...{ classNames: chosen.classNames, distribution: chosen.distribution, guestRegistry: chosen.guestRegistry },
    ...{ acknowledged: command.acknowledge, allow: command.allow, initdata: document },
  });
  return { output: command.json ? `${JSON.stringify(pods, null, 2)}\n` : joined(texts), notes };
}

async function chooseRuntime({
  stack,
  handler,
  platform,
  payload,
  distribution,
}: WorkloadCommand): Promise<ChosenRuntime> {
  if (stack !== undefined) {
    if (payload !== undefined || distribution !== undefined)
      throw new Refusal("usage", "--stack says payload and distribution: leave out --payload and --distribution.");
    return await runtimeOfStack(stack, { handler, platform });
  }
  if (platform === undefined || payload === undefined)
    throw new Refusal("usage", "Say which runtime: --platform and --payload, or --stack.");
  if (handler !== undefined) throw new Refusal("usage", "--handler chooses among the runtimes of a --stack.");
  const manifest = await readManifest(payload, "The lock command writes manifests.");
  return { runtime: measuredRuntime({ platform, manifest, distribution }), classNames: [], distribution };
}

/** Whose user is whom decides a policy; nothing else needs the images' layers. */
function makesPolicies({ acknowledge }: WorkloadCommand, { runtime }: ChosenRuntime, own: string | undefined): boolean {
  return own === undefined && !acknowledge.includes("no-policy") && isCovered(runtime);
}

/** @throws Refusal that lists every image that cannot be used, with the place that names it */
async function imagesOf(
  { images }: Manifests,
  { runtime }: ChosenRuntime,
  { users, progress, ...where }: ImageSource & { users: boolean; progress: Progress },
): Promise<Map<string, KnownImage>> {
  const known = new Map<string, KnownImage>();
  const mistakes: string[] = [];
  await Promise.all(
    images.map(async ({ reference, place }) => {
      try {
        const image = await configuredImage(reference, { ...where, users }, progress);
        const { pinned, size, ...described } = image;
        const layers =
          platforms[runtime.platform].snapshotter === undefined
            ? {}
            : { layers: await rootsOf(reference, image.digest, where, progress) };
        known.set(reference, { pinned, size, image: { ...described, ...layers } });
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        mistakes.push(`- ${place}: the image "${reference}" ${cannot(error)}`);
      }
    }),
  );
  if (mistakes.length > 0) throw new Refusal("images", `Images cannot be used:\n${mistakes.toSorted().join("\n")}`);
  return known;
}

const cannot = ({ code, message }: Refusal): string =>
  code === "image-reference" ? `${message}.` : `cannot be read: ${message}`;

async function rootsOf(reference: string, digest: string, where: ImageSource, progress: Progress) {
  const { registry, repository } = imageReference(reference, where.plainHttp);
  return (await imageLayers(`${registry}/${repository}@${digest}`, where, progress)).layers;
}

/** One stream: what a file ends with does not run into what the next begins with. */
const joined = (texts: readonly string[]): string =>
  texts
    .map((each, index) => {
      const whole = each.endsWith("\n") || each === "" ? each : `${each}\n`;
      return index === 0 || /^(---|%)/.test(each.trimStart()) ? whole : `---\n${whole}`;
    })
    .join("");
