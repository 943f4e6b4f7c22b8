import { parse, stringify } from "smol-toml";
import { TooSlow } from "../../node-installer/host/host.ts";
import { ApiError } from "../../node-installer/kubernetes/api.ts";
import type { MemoryNode } from "../fakes/memory-node.ts";

/** What goes wrong, in words that make the sentence "… at POINT". */
export const kinds = [
  // Calls that change the host, programs and probes.
  "fails once",
  "fails from then on",
  "is too slow once",
  "the disk is full from then on",
  "the disk is read-only from then on",
  "killed before",
  "killed after",
  "the power fails",
  // Another program.
  "the file is written anew before",
  "the file is written anew after",
  "an old file is put back before",
  "an old file is put back, and the process is killed before",
  "an old file is put back at each start",
  // Reads.
  "cannot be read once",
  "cannot be read from then on",
  // Requests.
  "is answered with 429",
  "is answered with 500",
  "is answered with 500 from then on",
  "is not answered",
  "is not answered from then on",
  "is done, and its answer is lost",
] as const;
export type Kind = (typeof kinds)[number];

export interface Fault {
  kind: Kind;
  /** Which call, counted from 1: among the reads for faults of reads, among all points for others. */
  at: number;
  /** Of what was not synced when the power fails, only this is lost. */
  lost?: string;
}

const failure = (code: string) => Object.assign(new Error(`${code}: injected`), { code });
const isWrite = (point: string) => /^(write|mkdir|copy|append|fsync .*[^/]$)/.test(point);
const changesFiles = (point: string) => /^(write|mkdir|copy|append|fsync|rename|remove|lock) /.test(point);
const onDisk: ReadonlySet<Kind> = new Set(["the disk is full from then on", "the disk is read-only from then on"]);
const isSlow = (kind: Kind) => kind === "is too slow once";
const ofRequests = (kind: Kind) => kind.startsWith("is ") && !isSlow(kind);
export const ofReads = (kind: Kind) => kind.startsWith("cannot be read");
export const ofOthers = (kind: Kind) => /^(the file is written|an old file)/.test(kind);

/** Whether a fault of the kind can strike at the point. */
export function applies(kind: Kind, point: string): boolean {
  const isRequest = point.startsWith("api ");
  if (kind === "the disk is full from then on") return isWrite(point);
  if (kind === "the disk is read-only from then on") return changesFiles(point);
  if (isSlow(kind)) return point.startsWith("run ");
  if (kind.startsWith("fails") || ofRequests(kind)) return ofRequests(kind) === isRequest;
  return true;
}

const requestError = (kind: Kind, point: string): ApiError =>
  kind.includes("429")
    ? new ApiError(429, "TooManyRequests", `${point}: 429 injected`)
    : kind.includes("500")
      ? new ApiError(500, "InternalError", `${point}: 500 injected`)
      : new ApiError(0, "Unreachable", `${point}: no answer`);

/** The file as a tool writes it that has read it: without comments, in another order, with a runtime of its own. */
function writtenAnew(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  try {
    const document = Object.entries(parse(text)).reverse();
    const id = text.includes("io.containerd.cri.v1.runtime")
      ? "io.containerd.cri.v1.runtime"
      : "io.containerd.grpc.v1.cri";
    const own = `[plugins."${id}".containerd.runtimes.nvidia]\nruntime_type = "io.containerd.runc.v2"\n`;
    const written = stringify(Object.fromEntries(document));
    return written.includes("runtimes.nvidia]") ? written : `${written}\n${own}`;
  } catch {
    // A template is no TOML.
    return undefined;
  }
}

/** Lets the faults strike on the node, one after the other; returns how to end those that last. */
export function inject(node: MemoryNode, old: string | undefined, faults: readonly Fault[]): () => void {
  const { host, shape } = node;
  let points = 0;
  let reads = 0;
  const strikes = faults.map((fault) => ({ fault, name: undefined as string | undefined }));
  const write = (text: string | undefined) => {
    if (text === undefined) return;
    host.put(shape.edited, text);
    host.onChange(shape.edited);
  };
  // Before a start, so it causes none.
  const putBack = (text: string | undefined) => text !== undefined && host.put(shape.edited, text);
  const rewrite = () => write(writtenAnew(host.text(shape.edited)));
  host.onRead = (read) => {
    reads += 1;
    for (const strike of strikes) {
      const { kind, at } = strike.fault;
      if (!ofReads(kind)) continue;
      if (reads === at) strike.name = read;
      else if (kind === "cannot be read once" || strike.name !== read) continue;
      throw failure(kind === "cannot be read once" ? "EIO" : "EACCES");
    }
  };
  host.onPoint = (point, when) => {
    if (when === "before") points += 1;
    for (const strike of strikes) {
      const { kind, at } = strike.fault;
      if (ofReads(kind)) continue;
      const isNow = points === at;
      if (isNow && when === "before") strike.name = point;
      if (strike.name === undefined) continue;
      const lasts = kind.endsWith("from then on");
      const isHit = isNow || (lasts && (onDisk.has(kind) || strike.name === point));
      if (!isHit || !(isNow || applies(kind, point))) continue;
      if (kind === "is done, and its answer is lost") {
        if (when === "after") throw requestError(kind, point);
      } else if (kind.endsWith("after") || kind === "the power fails") {
        if (when === "after" && kind === "the file is written anew after") rewrite();
        else if (when === "after") host.kill();
      } else if (when === "before") {
        if (kind === "killed before") host.kill();
        if (kind === "the file is written anew before") rewrite();
        else if (kind === "an old file is put back before") write(old);
        else if (kind === "an old file is put back, and the process is killed before") {
          write(old);
          host.kill();
        } else if (kind === "an old file is put back at each start") node.beforeStart = () => putBack(old);
        else if (isSlow(kind)) throw new TooSlow(point.replace(/^run /, ""), [], 60_000);
        else throw ofRequests(kind) ? requestError(kind, point) : failure(codeOf(kind));
      }
    }
  };
  return () => {
    host.onPoint = () => undefined;
    host.onRead = () => undefined;
    node.beforeStart = () => undefined;
  };
}

const codeOf = (kind: Kind): string =>
  kind === "the disk is full from then on" ? "ENOSPC" : kind === "the disk is read-only from then on" ? "EROFS" : "EIO";

/** A point without what differs from run to run. */
const named = (point: string): string => point.replaceAll(/\d{8}T[\d.]+Z/g, "TIME");

/** Calls that are repeated, such as the gate's looks: what their third shows, the first two have shown. */
export function worthTrying(names: readonly string[], most = 2): number[] {
  const seen = new Map<string, number>();
  return names.flatMap((name, index) => {
    const times = (seen.get(named(name)) ?? 0) + 1;
    seen.set(named(name), times);
    const isRepeated = /^(probe|run systemctl show|api|read|stat|list|append)/.test(name);
    return times <= most || !isRepeated ? [index + 1] : [];
  });
}
