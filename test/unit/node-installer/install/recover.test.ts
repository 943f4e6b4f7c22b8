import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { armedPath, firedPath } from "../../../../node-installer/host/guard.ts";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { guardsFilesOn, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

const afterRestart = "run systemctl restart containerd.service";

/** An installation whose process is killed after the n-th time that it has passed the point. */
async function killedAfter(spec: InstallSpec, point: string, time = 1): Promise<void> {
  let passed = 0;
  node.host.onPoint = (name, when) => {
    if (when === "after" && name === point && ++passed === time) node.host.kill();
  };
  await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
  node.host.revive();
}

test("a change that was interrupted after its restart is compared with what the node served before the change", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  node.displaced.add("runc");
  await killedAfter(spec, afterRestart);
  expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(node.log.join("")).toContain("handler runc is not served");
});

describe("an unfinished change", () => {
  let spec: InstallSpec;
  beforeEach(() => {
    spec = node.spec([node.runtime("00000001")]);
  });
  const fire = () => {
    node.host.put(firedPath, "outcome=restored\n");
    node.host.put(configPath, adminsFile);
    node.host.nodes.delete(armedPath);
    node.start();
  };
  const phase = () => JSON.parse(node.host.text(journalPath) ?? "").transaction.phase;
  const events = () => node.log.map((line) => JSON.parse(line)).filter(({ event }) => event !== "step");

  test("whose new bytes are in the file goes on with the restart", async () => {
    await killedAfter(spec, `rename ${configPath}`);
    expect(phase()).toBe("replacing");
    node.log.length = 0;
    const { points } = node.host;
    points.length = 0;
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
    expect(points.filter((point) => point === `rename ${configPath}`)).toEqual([]);
  });

  test.each([
    ["has it back before the restart", async () => ({ held: true }) as const],
    [
      "does not wait for an API server that is away",
      async () => {
        throw new Error("no answer");
      },
    ],
  ])("whose ticket was given back meanwhile %s", async (_, answer) => {
    await killedAfter(spec, `rename ${configPath}`);
    const cluster = withoutKubernetes(() => node.host.now());
    cluster.tickets = { ...cluster.tickets };
    let asked: number | undefined;
    cluster.tickets.acquire = async () => {
      asked ??= node.starts;
      return answer();
    };
    const { starts } = node;
    await converge(node.environment(spec, cluster));
    expect([asked, node.starts]).toEqual([starts, starts + 1]);
  });

  test("whose new bytes are not in the file is forgotten, and planned anew", async () => {
    await killedAfter(spec, `rename ${armedPath}`);
    expect([phase(), node.host.text(configPath)]).toEqual(["replacing", adminsFile]);
    const { starts } = node;
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
    expect(node.starts).toBe(starts + 1);
    expect(JSON.parse(node.host.text(journalPath) ?? "")).not.toHaveProperty("failure");
  });

  test("that the guard ended may be tried once more", async () => {
    await killedAfter(spec, `rename ${configPath}`);
    fire();
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
  });

  test("whose rollback was interrupted is rolled back, and not tried again", async () => {
    node.breaks.add(spec.runtimes[0]?.handler ?? "");
    await killedAfter(spec, `rename ${configPath}`, 2);
    expect(phase()).toBe("rolling-back");
    expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.served).toEqual([]);
  });

  test("whose rollback the guard ended is not tried again", async () => {
    node.breaks.add(spec.runtimes[0]?.handler ?? "");
    await killedAfter(spec, `rename ${configPath}`, 2);
    expect(phase()).toBe("rolling-back");
    fire();
    const { starts } = node;
    expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
    expect(node.starts).toBe(starts);
  });

  test("that is interrupted again and again is undone", async () => {
    await killedAfter(spec, afterRestart);
    // Twice in the gate, after the look that recovery begins with.
    for (let run = 0; run < 2; run += 1) await killedAfter(spec, "probe Status", 2);
    expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(events().map(({ reason }) => reason)).toContain(
      "The installer was interrupted during this change several times",
    );
  });
});

/** Files of a node on which a version from before was killed while it added a second runtime. */
const earlier: Record<string, Record<string, { mode: string; lines: string[] }>> = JSON.parse(
  readFileSync(new URL("earlier-versions.json", import.meta.url), "utf8"),
);

describe("a change that an earlier version began", () => {
  const lay = (phase: string): InstallSpec => {
    for (const [path, { mode, lines }] of Object.entries(earlier[phase] ?? {})) {
      node.host.put(path, lines.join("\n"), { mode: Number.parseInt(mode, 8), uid: 0, gid: 0 });
    }
    return node.spec([node.runtime("00000001"), node.runtime("00000002")]);
  };
  const phase = () => JSON.parse(node.host.text(journalPath) ?? "").transaction.phase;

  test("is finished", async () => {
    const spec = lay("replacing");
    expect(phase()).toBe("replacing");
    await converge(node.environment(spec));
    expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
    expect(node.host.text(journalPath)).not.toMatch(/bootId|transaction/);
    expect(guardsFilesOn(node)).toEqual([]);
  });

  test("and was rolling back is rolled back, and is not tried again", async () => {
    const spec = lay("rolling-back");
    expect(phase()).toBe("rolling-back");
    const [first, second] = spec.runtimes.map(({ handler }) => handler);
    node.breaks.add(second ?? "");
    node.start();
    expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
    expect(node.served).toEqual([first]);
    expect(guardsFilesOn(node)).toEqual([]);
  });
});
