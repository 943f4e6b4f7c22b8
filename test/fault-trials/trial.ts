import { isDeepStrictEqual } from "node:util";
import { journalPath, parseJournal } from "../../node-installer/host/journal.ts";
import { handlerName } from "../../runtime/spec.ts";
import { copyOf, install, type Prepared } from "./changes.ts";
import { type Fault, inject, type Kind, ofOthers } from "./faults.ts";

/** What a run without a fault came to: its calls in order, and the node after it. */
export interface Reference {
  points: string[];
  reads: string[];
  state: State;
}

/** What is compared between two nodes: nothing that depends on when or how often something was done. */
export interface State {
  files: Record<string, string>;
  journal: unknown;
  served: string[] | undefined;
  labels: string[];
  tickets: number;
  sandboxes: number;
  /** Backups that no journal knows, staged files, parts of the guard. */
  leftovers: string[];
}

/** Of each path, how its content is of no interest here: times, digests of times, or the tables of somebody else. */
const volatile = /^\/var\/log\/|\/restarts$|\.bak$|^\/run\/|\/journal\.json$/;

function stateOf({ node, cluster }: Prepared): State {
  const { host } = node;
  const tree = Object.entries(host.tree());
  const journal = parseJournal(host.text(journalPath) ?? "");
  const known = [...(journal?.file?.backups ?? []), ...(journal?.left ?? []).flatMap(({ backups }) => backups)];
  const leftovers = tree
    .map(([path]) => path)
    .filter((path) => /guard|staged|staging|candidate/.test(path) || (path.endsWith(".bak") && !known.includes(path)));
  return {
    files: Object.fromEntries(tree.filter(([path]) => !volatile.test(path))),
    journal: journal && {
      transaction: journal.transaction !== undefined,
      runtimes: journal.runtimes
        .map(({ runtime, configured, files }) => [runtime.handler, configured, files.length])
        .sort(),
      file: journal.file?.path,
      left: journal.left?.length ?? 0,
      created: journal.createdDirectories,
    },
    served: node.served?.toSorted(),
    labels: cluster.labels,
    tickets: cluster.tickets.length,
    sandboxes: node.sandboxes.length,
    leftovers,
  };
}

/** The same change without any fault. */
export async function reference(prepared: Prepared): Promise<Reference> {
  const run = copyOf(prepared);
  const reads: string[] = [];
  run.node.host.onRead = (read) => reads.push(read);
  const { starts } = run.node;
  const end = await install(run);
  const isBroken = prepared.change.broken !== undefined;
  if (end !== (isBroken ? "failed" : "ready")) throw new Error(`without a fault the change ended as ${end}`);
  const restarts = run.node.starts - starts;
  if (restarts !== (isBroken ? 2 : 1)) throw new Error(`without a fault there were ${restarts} restarts`);
  const state = stateOf(run);
  if (state.leftovers.length > 0) throw new Error(`without a fault there were left: ${state.leftovers.join(", ")}`);
  if (!isDeepStrictEqual(state.labels, state.served))
    throw new Error("without a fault the labels were not what is served");
  return { points: [...run.node.host.points], reads, state };
}

const kills = (kind: Kind): boolean => kind.includes("killed") || kind === "the power fails";
/** Calls without which nobody could restore anything. */
const isHopeless = (kind: Kind): boolean =>
  kind === "the disk is read-only from then on" ||
  kind === "fails from then on" ||
  kind === "cannot be read from then on";

/** In the first hour: see restart-budget.ts. A spec that was not tried before may have two more. */
const mostRestarts = 6;

/**
 * One run with faults. While they last and right after them, the CRI must serve the old or the new, or nobody could help it;
 * and when they are over, a retry ends as the run without a fault did. Returns what was not synced when the power failed.
 */
export async function trial(prepared: Prepared, expected: Reference, faults: readonly Fault[]): Promise<string[]> {
  const run = copyOf(prepared);
  const { node, cluster } = run;
  const { host } = node;
  const old = host.text(node.shape.edited);
  const before = stateOf(run);
  const byOthers = faults.some(({ kind }) => ofOthers(kind));
  let unsynced: string[] = [];
  let { starts } = node;
  const rounds = faults.some(({ kind }) => kills(kind)) ? faults.map((fault) => [fault]) : [faults];
  for (const round of rounds) {
    const end = inject(node, old, round);
    await install(run);
    end();
    unsynced = host.unsynced();
    host.revive();
    const power = round.find(({ kind }) => kind === "the power fails");
    if (power !== undefined) {
      host.losePower(power.lost === undefined ? undefined : [power.lost]);
      node.boot();
      starts += 1;
    }
    // No installer is there, only the host, whose guard counts its restart, but needs no room for it.
    const { starts: beforeGuard } = node;
    node.runGuard();
    starts += node.starts - beforeGuard;
    if (!round.some(({ kind }) => isHopeless(kind))) settled(run, before, expected.state, byOthers);
    requireAtMost(node.starts - starts);
  }
  if (byOthers) {
    // Whoever writes into containerd's file also loads it: that is what the installer asks for.
    node.start();
    starts += 1;
  }
  // The fault is over, and the pod comes back; a change that counts as failed is asked for again.
  let end = await install(run);
  settled(run, before, expected.state, byOthers);
  const isBroken = prepared.change.broken !== undefined;
  if (end !== "ready" && !isBroken) {
    requireAtMost(node.starts - starts);
    starts = node.starts;
    cluster.askAgain();
    end = await install(run);
  }
  requireAtMost(node.starts - starts);
  if (end !== (isBroken ? "failed" : "ready")) throw new Error(`at last the node is ${end}`);
  requireEqual(stateOf(run), expected.state, byOthers);
  return unsynced;
}

function requireAtMost(restarts: number): void {
  if (restarts > mostRestarts) throw new Error(`containerd was restarted ${restarts} times`);
}

/** The CRI answers; daemon and file agree on the old or the new; what they name is there; labels promise no more. */
function settled({ node, cluster }: Prepared, before: State, after: State, byOthers: boolean): void {
  const { host, served: now, shape } = node;
  const served = now?.toSorted();
  if (served === undefined) throw new Error("the CRI does not serve");
  const text = host.text(shape.edited);
  if (!byOthers) {
    const isOld = isDeepStrictEqual(served, before.served);
    if (!isOld && !isDeepStrictEqual(served, after.served)) throw new Error(`neither old nor new: ${served.join()}`);
    const inFile = handlersIn(text, shape.edited);
    if (!isDeepStrictEqual(inFile, served))
      throw new Error(`the daemon serves ${served.join()}, the file has ${inFile.join()}`);
    const path = Object.keys(before.files).find((each) => each === shape.edited);
    if (isOld && text !== undefined && path !== undefined && before.files[path]?.slice(4) !== text)
      throw new Error("neither the old bytes nor the new state");
  }
  for (const handler of served) {
    const shim = host.text(`/opt/edgeless/${handler}/bin/containerd-shim-contrast-cc-v2`);
    if (shim !== `shim of ${handler.slice(-8)}`) throw new Error(`the files of ${handler} are not whole`);
  }
  // What another program unserves, the next look tells.
  const promised = byOthers ? [] : cluster.labels.filter((handler) => !served.includes(handler));
  if (promised.length > 0) throw new Error(`there is a label for ${promised.join()}, which is not served`);
}

const handlersIn = (text: string | undefined, file: string): string[] =>
  text === undefined
    ? []
    : [...new Set(text.replaceAll(/^[ \t]*#.*$/gm, "").match(/contrast-[a-z0-9-]+(?=["']?\][ \t]*$)/gm) ?? [])]
        .filter((name) => handlerName.safeParse(name).success && file !== "")
        .sort();

function requireEqual(state: State, expected: State, byOthers: boolean): void {
  for (const key of Object.keys(expected) as (keyof State)[]) {
    if (key === "files") requireFiles(state.files, expected.files, byOthers);
    else if (!isDeepStrictEqual(state[key], expected[key])) {
      throw new Error(`${key}: ${JSON.stringify(state[key])} instead of ${JSON.stringify(expected[key])}`);
    }
  }
}

function requireFiles(files: State["files"], expected: State["files"], byOthers: boolean): void {
  const paths = new Set([...Object.keys(files), ...Object.keys(expected)]);
  const differing = [...paths].filter((path) => files[path] !== expected[path]);
  // containerd's file, what is rendered from it, and the copy without our block.
  const wrong = byOthers ? differing.filter((path) => !/\.toml(\.tmpl)?$|\/pristine/.test(path)) : differing;
  const [first] = wrong;
  if (first === undefined) return;
  throw new Error(
    `${wrong.join(", ")}: ${files[first] ?? "nothing"}\n-- instead of --\n${expected[first] ?? "nothing"}`,
  );
}
