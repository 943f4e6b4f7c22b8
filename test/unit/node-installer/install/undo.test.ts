import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { logPath } from "../../../../node-installer/host/files.ts";
import { journalPath, parseJournal } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { backupsOn, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

describe("rollback", () => {
  test("a handler that breaks the CRI: exact bytes back, serving, and not retried automatically", async () => {
    const good = node.runtime("00000001");
    await converge(node.environment(node.spec([good])));
    const file = node.host.text(configPath);
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    const spec = node.spec([good, bad]);
    await expect(converge(node.environment(spec))).rejects.toThrow(RolledBack);
    expect(node.host.text(configPath)).toBe(file);
    expect(node.served).toEqual([good.handler]);

    const starts = node.starts;
    expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
    expect(node.starts).toBe(starts);
  });

  test("is retried when somebody asks (with a new token, once) or when the spec changes", async () => {
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    const spec = node.spec([bad]);
    await expect(converge(node.environment(spec))).rejects.toThrow(RolledBack);
    await expect(converge(node.environment(spec), { retry: true })).rejects.toThrow(RolledBack);
    await expect(converge(node.environment(spec), { retryToken: "one" })).rejects.toThrow(RolledBack);
    expect(await refusalOf(converge(node.environment(spec), { retryToken: "one" }))).toBe("failed-before");
    node.breaks.clear();
    await converge(node.environment({ ...spec, atOnce: 2 }));
    expect(node.served).toEqual([bad.handler]);
  });
});

test("a node that rolled back keeps its ticket until it serves what the spec asks for", async () => {
  const cluster = withoutKubernetes(() => node.host.now());
  cluster.tickets = { ...cluster.tickets };
  let held = 0;
  cluster.tickets.acquire = async () => {
    held = 1;
    return { held: true };
  };
  cluster.tickets.release = async () => {
    held = 0;
  };
  const bad = node.runtime("0000000b");
  node.breaks.add(bad.handler);
  await expect(converge(node.environment(node.spec([bad]), cluster))).rejects.toThrow(RolledBack);
  expect(await refusalOf(converge(node.environment(node.spec([bad]), cluster)))).toBe("failed-before");
  expect(held).toBe(1);
  await converge(node.environment(node.spec([node.runtime("00000001")]), cluster));
  expect(held).toBe(0);
});

test("a backup that does not hold the old bytes is noticed before the file is edited", async () => {
  const { readFile } = node.host;
  node.host.readFile = async (path) => (path.endsWith(".bak") ? Buffer.from("lost") : readFile.call(node.host, path));
  const spec = node.spec([node.runtime("00000001")]);
  await expect(converge(node.environment(spec))).rejects.toThrow(/the backup .*\.bak does not hold what was written/);
  expect([node.host.text(configPath), backupsOn(node), node.starts]).toEqual([adminsFile, [], 1]);
});

test("a disk that does not take a failed change's end, and is asked again, keeps no backup that the journal does not know", async () => {
  const bad = node.runtime("0000000b");
  node.breaks.add(bad.handler);
  const spec = node.spec([bad]);
  let isSick = false;
  node.host.onPoint = (point, when) => {
    if (point.startsWith("probe") && node.served === undefined) isSick = true;
    if (isSick && when === "before" && point === "fsync /var/lib/contrast-runtime/") throw new Error("EIO: sick");
  };
  for (let attempt = 0; attempt < 3; attempt += 1) await converge(node.environment(spec)).catch(() => undefined);
  node.host.onPoint = () => undefined;
  expect(await refusalOf(converge(node.environment(spec)))).toBe("failed-before");
  const journal = parseJournal(node.host.text(journalPath) ?? "");
  expect(backupsOn(node)).toEqual(journal?.file?.backups);
});

describe("somebody's request for another attempt", () => {
  test("does not count if it came before the failure", async () => {
    await converge(node.environment(node.spec([node.runtime("00000001")])), { retryToken: "early" });
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    const spec = node.spec([bad]);
    await expect(converge(node.environment(spec), { retryToken: "early" })).rejects.toThrow(RolledBack);
    expect(await refusalOf(converge(node.environment(spec), { retryToken: "early" }))).toBe("failed-before");
  });
});

test("a change that the guard undid meanwhile is not committed", async () => {
  const spec = node.spec([node.runtime("00000001")]);
  node.host.onPoint = (point, when) => {
    if (point !== "probe Status" || when !== "after" || node.starts < 2) return;
    node.host.onPoint = () => undefined;
    // The installer hung for longer than the guard waits.
    node.host.put("/var/lib/contrast-runtime/guard.fired", "outcome=restored\n");
    node.host.put(configPath, adminsFile);
    node.host.nodes.delete("/var/lib/contrast-runtime/guard.armed");
  };
  await expect(converge(node.environment(spec))).rejects.toThrow(/rolled back: the guard on the host undid the change/);
  expect(node.served).toEqual([]);
  expect(node.host.text(configPath)).toBe(adminsFile);
});

test("the node's log says what came and went, which a rollback and a look without a change do not", async () => {
  const [one, two] = [node.runtime("00000001"), node.runtime("00000002")];
  await converge(node.environment(node.spec([one])));
  node.breaks.add(two.handler);
  await expect(converge(node.environment(node.spec([two])))).rejects.toThrow(RolledBack);
  node.breaks.clear();
  await converge(node.environment(node.spec([two])), { retry: true });
  await converge(node.environment(node.spec([two])));
  await converge(node.environment(node.spec([])));
  const lines = (node.host.text(logPath) ?? "").split("\n").filter(Boolean);
  const changes = lines.map((line) => JSON.parse(line)).filter(({ event }) => event === "handlers-changed");
  expect(changes.map(({ installed, removed }) => ({ installed, removed }))).toEqual([
    { installed: [one.handler], removed: [] },
    { installed: [two.handler], removed: [one.handler] },
    { installed: [], removed: [two.handler] },
  ]);
});
