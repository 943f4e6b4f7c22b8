import * as z from "zod";
import type { RuntimeConfiguration } from "../../components/config/payloads.ts";
import type { GroupConfiguration } from "../../components/config/read.ts";
import { type MeasuredRuntime, measuredRuntime } from "../../measure/runtime.ts";
import type { GuestRegistry } from "../../runtime/guest-registry.ts";
import { judgeSettings } from "../../runtime/kata-overrides.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { DistributionName, PlatformName } from "../../runtime/spec.ts";
import { configurationOf, readStackFile } from "../files/stack-file.ts";

/** A runtime, and what its stack says about its pods besides. */
export interface ChosenRuntime {
  runtime: MeasuredRuntime;
  classNames: readonly string[];
  distribution?: DistributionName | undefined;
  guestRegistry?: GuestRegistry | undefined;
}

/**
 * The one runtime of a stack's file that fits what is asked for.
 *
 * @throws Refusal that names all where it is none or several
 */
export async function runtimeOfStack(
  file: string,
  wanted: { handler?: string | undefined; platform?: PlatformName | undefined },
): Promise<ChosenRuntime> {
  const config = await readStackFile(file);
  const { groups, registry } = await configurationOf(file, forPodsAlone(config), { secretKeys: ["registry"] });
  const all = groups.flatMap((group) => group.runtimes.map((runtime) => ({ group, runtime })));
  const fitting = all.filter(
    ({ runtime }) =>
      (wanted.handler ?? runtime.handler) === runtime.handler &&
      (wanted.platform ?? runtime.platform) === runtime.platform,
  );
  // Several groups may have the same one.
  const [first, ...others] = fitting.filter(
    ({ runtime }, index) => fitting.findIndex((each) => each.runtime.handler === runtime.handler) === index,
  );
  if (first === undefined || others.length > 0) {
    const names = [...new Set(all.map(({ runtime }) => runtime.handler))].join(", ");
    throw new Refusal(
      "usage",
      `${file} has ${first === undefined ? "no such runtime" : "several such runtimes"}: choose one of ${names} by --handler.`,
    );
  }
  return chosen(first, registry.guest);
}

const settingsSchema = z.looseObject({
  groups: z.record(z.string(), z.looseObject({})).optional(),
  registry: z.looseObject({ guest: z.looseObject({ credentials: z.unknown().optional() }).optional() }).optional(),
});

/** Which nodes there are, how they are reached and what is secret, does not matter to pods: stand-ins take their place. */
function forPodsAlone(config: Record<string, unknown>): Record<string, unknown> {
  const { data } = settingsSchema.safeParse(config);
  if (data === undefined) return config;
  const groups = Object.entries(data.groups ?? {}).map(([name, group]) => [
    name,
    { ...group, nodes: { selector: { group: name } } },
  ]);
  const guest = data.registry?.guest;
  const logins = guest?.credentials === undefined ? {} : { credentials: standIn.logins };
  return {
    groups: Object.fromEntries(groups),
    installerImage: standIn.image,
    ...(guest && { registry: { guest: { ...guest, ...logins } } }),
  };
}

const standIn = {
  logins: JSON.stringify({ auths: { "registry.invalid": { auth: Buffer.from("a:b").toString("base64") } } }),
  image: `registry.invalid/installer@sha256:${"0".repeat(64)}`,
};

function chosen(
  { group, runtime }: { group: GroupConfiguration; runtime: RuntimeConfiguration },
  guestRegistry: GuestRegistry | undefined,
): ChosenRuntime {
  const { platform, manifest, classNames } = runtime;
  const distribution = group.distribution.name;
  const { changes } = judgeSettings({ platform, manifest }, runtime);
  const choice = { platform, manifest, distribution, changes, guestRegistry: guestRegistry !== undefined };
  // Logins are for the nodes to know.
  const { credentials: _, ...withoutLogins } = guestRegistry ?? {};
  return {
    ...{ runtime: measuredRuntime(choice), classNames, distribution },
    ...(guestRegistry && { guestRegistry: withoutLogins }),
  };
}
