import { readFile } from "node:fs/promises";
import { listed } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";
import { bundleHost, parseBundle } from "../host/bundle.ts";
import type { Host } from "../host/host.ts";
import { containerdOn, type Daemon } from "../install/daemon.ts";
import { unifiedDiff } from "../install/diff.ts";
import { planFor, replayingDaemon } from "../install/dry-run.ts";
import { bytesToCopy, type Change } from "../install/plan.ts";
import { readSpec } from "../install/read-spec.ts";
import { type Options, openHost } from "./context.ts";

/**
 * The document that `plan --json` prints. `content` is set for text files that are created or edited, `untrusted` if the
 * installation is refused until what its sentences name is corrected.
 */
export interface PlanDocument {
  changes: { path: string; action: Change["action"]; content?: string }[];
  bytesToCopy: number;
  restart: boolean;
  untrusted?: string[];
  /** What the node's owner must know before something that they may do later. */
  notices?: string[];
  /** What containerd's restart would load that others have changed; refused, unless `loadPendingChanges` is set. */
  pending?: string[];
}

type Made = Awaited<ReturnType<typeof planFor>>;

export async function plan(options: Options): Promise<number> {
  const { spec } = await readSpec(options.spec);
  const { host, daemon } = await source(options, spec);
  const made = await planFor(host, daemon, spec, options.bundle === undefined);
  if (options.json) options.print(`${JSON.stringify(documentOf(made), null, 2)}\n`);
  else options.print(describe(made, spec.loadPendingChanges === true));
  return 0;
}

async function source(options: Options, spec: InstallSpec): Promise<{ host: Host; daemon: Daemon }> {
  if (options.bundle === undefined) {
    const host = openHost(options);
    return { host, daemon: containerdOn(host, spec.distribution) };
  }
  let text: string;
  try {
    text = await readFile(options.bundle, "utf8");
  } catch (error) {
    throw new Refusal("bad-arguments", `The bundle ${cannotBeRead(options.bundle, error)}.`, {
      cause: error,
    });
  }
  const bundle = parseBundle(text);
  if (bundle === undefined) {
    throw new Refusal(
      "bad-arguments",
      `${options.bundle} is not a node's bundle of this version: create one with the command snapshot.`,
    );
  }
  const host = bundleHost(bundle);
  return { host, daemon: replayingDaemon(containerdOn(host, spec.distribution), bundle) };
}

function documentOf({ plan, changes, notices, pending }: Made): PlanDocument {
  return {
    changes: changes.map(({ path, action, content }) => ({
      path,
      action,
      ...(content !== undefined && { content: content.toString() }),
    })),
    bytesToCopy: bytesToCopy(plan),
    restart: plan.restart,
    ...(plan.untrusted.length > 0 && { untrusted: plan.untrusted }),
    ...(notices.length > 0 && { notices }),
    ...(pending.length > 0 && { pending }),
  };
}

function describe({ plan, changes, servingKnown, notices, pending }: Made, loadPending: boolean): string {
  const loads = loadPending ? "containerd's restart loads it, as loadPendingChanges allows" : "restart it first";
  const said = [
    ...notices.map((sentence) => `note: ${sentence}\n`),
    ...pending.map((sentence) => `${loadPending ? "pending" : "refused"}: ${sentence}: ${loads}\n`),
    ...plan.untrusted.map((sentence) => `refused: ${sentence}\n`),
    ...plan.blocked.map(({ handler, pods }) => `stays: ${handler}, used by ${listed(pods)}\n`),
  ];
  if (changes.length === 0 && !plan.restart) {
    const asked = servingKnown ? "" : " (no running containerd was asked)";
    return `${said.join("")}Nothing to do${asked}.\n`;
  }
  const parts = changes.map(({ path, action, before, content }) =>
    before === undefined && content === undefined
      ? `${action} ${path}\n`
      : `${action} ${path}\n${unifiedDiff(path, before?.toString(), content?.toString())}`,
  );
  const restart = plan.restart ? "containerd restarts once" : "containerd is not restarted";
  return [...parts, ...said, `${bytesToCopy(plan)} bytes to copy; ${restart}.\n`].join("");
}
