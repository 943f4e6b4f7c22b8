import { bareMetalNodesCard, localClusterCard } from "../../runtime/cards.ts";
import { type Inputs, items } from "../preview/inputs.ts";
import type { Step } from "../preview/step.ts";
import { code, exchange } from "../text.ts";
import { joinedAndLeft } from "./groups.ts";
import { known, type Line, predicted } from "./line.ts";

/** Of each host by itself: one that cannot be read hides no other. */
const hostKeySchema = bareMetalNodesCard.schema.shape.hosts.element.pick({ name: true, hostKey: true });

export function hostKeyLines({ before, after }: Step): Line[] {
  const keys = (inputs: Inputs | undefined) =>
    new Map(
      items(inputs?.hosts).flatMap((host) => {
        const { data } = hostKeySchema.safeParse(host);
        return data === undefined ? [] : [[data.name, data.hostKey]];
      }),
    );
  const [old, now] = [keys(before), keys(after)];
  return [...now].flatMap(([host, key]) => {
    if (old.get(host) === key) return [];
    const text = old.has(host) ? exchange(old.get(host), key) : code(key);
    return [known(`Host ${code(host)} is trusted by its key ${text}.`)];
  });
}

export function hostLines({ type, name, before, after }: Step): Line[] {
  if (type === localClusterCard.type) {
    const names = (inputs: Inputs | undefined) =>
      (localClusterCard.schema.safeParse(inputs).data?.nodes ?? []).map((node) => node.name);
    const { joined, left } = joinedAndLeft(names(before), names(after));
    return [
      ...joined.map((node) => known(`Node ${code(node)} of the local cluster is made.`)),
      ...left.map((node) => known(`Node ${code(node)} of the local cluster is removed with all that is on it.`)),
    ];
  }
  if (type !== bareMetalNodesCard.type) return [];
  const read = (inputs: Inputs | undefined) => bareMetalNodesCard.schema.safeParse(inputs).data?.hosts ?? [];
  const [old, now] = [read(before), read(after)];
  const { joined, left } = joinedAndLeft(
    old.map((host) => host.name),
    now.map((host) => host.name),
  );
  const addressOf = (of: typeof old, host: string) => of.find((entry) => entry.name === host)?.address;
  const skippedIn = (of: typeof old) => of.filter(({ skipped }) => skipped !== undefined).map((host) => host.name);
  const skipped = joinedAndLeft(skippedIn(old), skippedIn(now));
  const moved = now.filter((host) => ![undefined, host.address].includes(addressOf(old, host.name)));
  return [
    ...joined
      .filter((host) => !skippedIn(now).includes(host))
      .map((host) => known(`Host ${code(host)} (${code(addressOf(now, host))}) is made ready by SSH.`)),
    ...skipped.joined.map((host) =>
      known(`Host ${code(host)} is skipped, for ${code("ignoreNodes")} names it: nothing is run on it by SSH.`),
    ),
    ...skipped.left
      .filter((host) => !left.includes(host))
      .map((host) => known(`Host ${code(host)} is no longer skipped: what was not run on it before is run now.`)),
    ...left.map((host) => known(`Host ${code(host)} (${code(addressOf(old, host))}) leaves ${code(name)}.`)),
    ...(left.length > 0
      ? [predicted("What was prepared on such a host is taken back by SSH; it stays a member of the cluster.")]
      : []),
    ...moved.map((host) =>
      known(`Host ${code(host.name)} is at ${code(host.address)} instead of ${code(addressOf(old, host.name))}.`),
    ),
  ];
}
