import { platforms } from "../../runtime/platforms.ts";
import { type HostRequirements, handlerName, type RuntimeSpec } from "../../runtime/spec.ts";
import { CriError } from "../containerd/cri-error.ts";
import type { Located } from "../containerd/locate.ts";
import { unitState } from "../containerd/restart.ts";
import { type ServingState, serves } from "../containerd/serving.ts";
import { type Journal, readJournal } from "../host/journal.ts";
import type { Environment } from "./environment.ts";
import { entryOf } from "./observe.ts";

/**
 * The handlers whose labels the node carries, which decides where new pods of their classes go:
 *
 * - the daemon serves the handler with our options, and not on trial, between edit and commit;
 * - the host passes the handler's checks now;
 * - the spec lists it, or the node does not serve all that the spec lists. So a runtime that is replaced takes pods while
 *   the node waits for its turn, and again after a rollback; one that goes, because all that should be there is there,
 *   takes none from the moment on that the spec says so. Right before the edit that removes it, `cordon` (prepare.ts)
 *   takes its label in any case.
 *
 * @param journal undefined: it cannot be read. The daemon knows what it serves, if not with which options it should.
 */
export async function labelled(
  { spec, unfit }: Pick<Environment, "spec" | "unfit">,
  located: Located,
  serving: ServingState | undefined,
  journal: Journal | undefined,
): Promise<string[]> {
  if (serving === undefined) return [];
  const listed = new Set(spec.runtimes.map(({ handler }) => handler));
  const isServed = (runtime: RuntimeSpec) => serves(serving, [entryOf(runtime)]).length === 0;
  const trial = journal?.transaction;
  const isProven = (handler: string) => trial === undefined || trial.handlersBefore.includes(handler);
  const known = [...spec.runtimes, ...(journal?.runtimes.map(({ runtime }) => runtime) ?? [])];
  const served = known.filter((runtime) => isServed(runtime) && isProven(runtime.handler));
  const isComplete = spec.runtimes.every((runtime) => served.includes(runtime));
  const wanted = isComplete ? served.filter(({ handler }) => listed.has(handler)) : served;
  const names = wanted.map(({ handler }) => handler);
  const others = Object.keys(serving.handlers).filter(
    (name) => handlerName.safeParse(name).success && !names.includes(name),
  );
  const unknown = journal === undefined && !isComplete ? others : [];
  const without = new Set([
    ...(await unfit(located, [...wanted, ...unknown.flatMap(ofPlatform)])),
    // Served, but not as the spec wants it.
    ...spec.runtimes.filter((runtime) => !served.includes(runtime)).map(({ handler }) => handler),
  ]);
  return [...new Set([...names, ...unknown])].filter((name) => !without.has(name)).sort();
}

/** What the host must have for a handler of which nothing is known but its name. */
function ofPlatform(handler: string): { handler: string; host: HostRequirements }[] {
  const platform = handler.replace(/^contrast-(cc|insecure)-/, "").replace(/-[0-9a-f]{8}$/, "");
  return Object.entries(platforms).flatMap(([name, { host }]) => (name === platform ? [{ handler, host }] : []));
}

/**
 * The same from nothing but a look at the running daemon, for when a plan is impossible. undefined: the daemon may just be
 * slow, or cannot be found.
 *
 * @param last where it was found before
 */
export async function labelledNow(environment: Environment, last?: Located): Promise<string[] | undefined> {
  const { host, daemon, spec } = environment;
  const journal = await readJournal(host, spec).catch(() => undefined);
  const located = await daemon.locate().catch(() => last);
  if (located === undefined) return undefined;
  try {
    return await labelled(environment, located, await daemon.serving(located, 5_000), journal);
  } catch (error) {
    if (error instanceof CriError && error.withoutPlugin) return [];
    const unit = await unitState(host, located.unit).catch(() => undefined);
    return unit?.active === "failed" || unit?.active === "inactive" ? [] : undefined;
  }
}
