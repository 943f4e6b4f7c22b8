import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { restartsLeft, restartsPath } from "../../../../node-installer/host/restart-budget.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RollbackFailed, RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { messageOf, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
let spec: InstallSpec;
beforeEach(() => {
  node = new MemoryNode();
  spec = node.spec([node.runtime("00000001")]);
});
afterEach(() => node.close());

const hourMs = 3_600_000;
const counted = () => (node.host.text(restartsPath) ?? "").split("\n").filter((line) => line && !/ asked /.test(line));
const purposes = () => counted().map((line) => line.split(" ")[1]);

/** containerd's unit copies the golden file into place at each start. */
function putBackAtEachStart(): void {
  const dropIn = "/etc/systemd/system/containerd.service.d/10-golden.conf";
  node.host.put(dropIn, `[Service]\nExecStartPre=/bin/cp /etc/golden.toml ${configPath}\n`);
  node.beforeStart = () => node.host.put(configPath, adminsFile);
}

describe("restarts", () => {
  test("are counted before they happen: those of a change, its rollback, and the guard's", async () => {
    const bad = node.runtime("0000000b");
    node.breaks.add(bad.handler);
    await expect(converge(node.environment(node.spec([bad])))).rejects.toBeInstanceOf(RolledBack);
    expect(purposes()).toEqual(["change", "rollback"]);

    node.host.onPoint = (point, when) => {
      if (point === "run systemctl restart containerd.service" && when === "before") node.host.kill();
    };
    await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
    node.host.revive();
    node.runGuard();
    expect(purposes()).toEqual(["change", "rollback", "change", "guard"]);
  });

  test("of an uninstalled node are forgotten with everything else", async () => {
    await converge(node.environment(spec));
    await converge(node.environment(node.spec([])));
    expect(counted()).toEqual([]);
  });

  test("are at most six in an hour and twelve in a day, two of them left for a change", () => {
    const at = (...minutes: number[]) => minutes.map((minute) => ({ at: minute * 60_000, for: "change", content: "" }));
    expect(restartsLeft(at(0, 1, 2, 3), 10 * 60_000).left).toBe(2);
    const used = restartsLeft(at(0, 1, 2, 3, 4), 10 * 60_000);
    expect(used).toEqual({ left: 1, more: new Date(hourMs), isDaySpent: false });
    const day = restartsLeft(at(...Array.from({ length: 12 }, (_, i) => i * 30)), 12 * hourMs);
    expect(day).toEqual({ left: 0, more: new Date(24 * hourMs + 30 * 60_000), isDaySpent: true });
  });
});

test("drift is repaired with two restarts left, not with one: what was begun must not end without its rollback", async () => {
  await converge(node.environment(spec));
  const [line = ""] = counted();
  const spent = (times: number) => {
    node.host.put(configPath, adminsFile);
    node.start();
    node.host.put(restartsPath, `${line}\n`.repeat(times));
  };
  spent(5);
  expect(await refusalOf(converge(node.environment(spec)))).toBe("restart-budget");
  // Somebody who asks for it begins a new hour's budget, also with a token in the cluster.
  expect(await converge(node.environment(spec), { retryToken: "again" })).toMatchObject({ changed: true });
  expect(counted().length).toBe(6);
  spent(4);
  expect(await converge(node.environment(spec))).toMatchObject({ changed: true });
  expect(counted().length).toBe(5);
});

describe("a file that is put back at each start of containerd", () => {
  beforeEach(putBackAtEachStart);

  test("ends after two restarts in a refusal that names who does it, with the administrator's file served", async () => {
    const { starts } = node;
    const message = await messageOf(converge(node.environment(spec)));
    expect(message).toMatch(/replaced it as soon as containerd was restarted, 2 times/);
    expect(message).toMatch(/containerd\.service has ExecStartPre=\/bin\/cp .*10-golden\.conf/);
    expect(node.starts - starts).toBe(2);
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.served).toEqual([]);
  });

  test("is not fought: in a day of attempts, no more restarts than the budget", async () => {
    const { starts } = node;
    const began = node.host.time;
    let last = "";
    while (node.host.time - began < 24 * hourMs - 60_000) {
      last = await messageOf(converge(node.environment(spec)));
      node.host.time += 300_000;
    }
    expect(node.starts - starts).toBeGreaterThanOrEqual(4);
    expect(node.starts - starts).toBeLessThanOrEqual(12);
    expect(last).toMatch(/was restarted 1\d times in the last 24 hours.*The next attempt is made at/s);
    expect(last).toMatch(/ExecStartPre/);
  });

  test("is tried again when somebody asks, for a new spec, and when the hour is over", async () => {
    while ((await refusalOf(converge(node.environment(spec)))) !== "restart-budget") node.host.time += 1_000;
    const tried = async (action: () => Promise<unknown>) => {
      const { starts } = node;
      await messageOf(action());
      return node.starts > starts;
    };
    expect(await tried(() => converge(node.environment(spec)))).toBe(false);
    expect(await tried(() => converge(node.environment(node.spec([node.runtime("00000002")]))))).toBe(true);
    node.host.time += hourMs;
    expect(await tried(() => converge(node.environment(spec)))).toBe(true);
    expect(await tried(() => converge(node.environment(spec), { retry: true }))).toBe(true);
  });

  test("is not fought either when a pipeline asks every ten minutes: then the day's budget counts, and is said", async () => {
    const { starts } = node;
    const ask = (token: number) => messageOf(converge(node.environment(spec), { retryToken: `token ${token}` }));
    let last = "";
    for (let token = 0; token < 24; token += 1) {
      last = await ask(token);
      node.host.time += 600_000;
    }
    expect(node.starts - starts).toBeGreaterThan(6);
    expect(node.starts - starts).toBeLessThanOrEqual(12);
    expect(last).toContain("Asking for it (--retry) does not help before");
    // The way out that the sentence names.
    expect(last).toContain(`delete ${restartsPath}`);
    node.host.nodes.delete(restartsPath);
    node.beforeStart = () => undefined;
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
  });

  test("is the same attempt for a spec that differs in nothing that is written, and for a file of others that differs", async () => {
    const { starts } = node;
    let writes = 0;
    node.beforeStart = () => node.host.put(configPath, `${adminsFile}# ${++writes}\n`);
    for (let atOnce = 1; atOnce <= 20; atOnce += 1) {
      await messageOf(converge(node.environment({ ...spec, atOnce })));
      node.host.time += 60_000;
    }
    expect(node.starts - starts).toBeLessThanOrEqual(6);
  });

  test("a clock that is set back does not stop the node for years, nor does a damaged line", async () => {
    node.host.skew = 10 * 365 * 24 * hourMs;
    while ((await refusalOf(converge(node.environment(spec)))) !== "restart-budget") node.host.time += 1_000;
    node.host.skew = 0;
    node.host.put(restartsPath, `${node.host.text(restartsPath)}damaged\n`);
    expect(await refusalOf(converge(node.environment(spec)))).toBe("file-contested");
  });
});

test("a rollback that fails again and again ends at the budget, too, and goes on looking", async () => {
  const bad = node.runtime("0000000b");
  node.breaks.add(bad.handler);
  // The restored file does not help: something else on this node is broken now.
  node.beforeStart = () => {
    node.breaks.add("runc");
  };
  await expect(converge(node.environment(node.spec([bad])))).rejects.toBeInstanceOf(RollbackFailed);
  for (let run = 0; run < 20; run += 1) {
    await expect(converge(node.environment(node.spec([bad])))).rejects.toBeInstanceOf(RollbackFailed);
  }
  expect(counted().length).toBe(6);
  node.beforeStart = () => undefined;
  node.breaks.delete("runc");
  node.start();
  expect(await refusalOf(converge(node.environment(node.spec([bad]))))).toBe("failed-before");
  expect(node.host.text(configPath)).toBe(adminsFile);
});

test("a containerd that starts slowly is waited for, and not restarted a second time", async () => {
  node.beforeStart = () => {
    node.startsInMs = 500_000;
  };
  const { starts } = node;
  await converge(node.environment(spec));
  expect(node.starts - starts).toBe(1);
  expect(node.served).toHaveLength(1);
});

test("an installer that is killed while containerd starts waits on in its next life", async () => {
  node.beforeStart = () => {
    node.startsInMs = 500_000;
  };
  const { starts } = node;
  let looks = 0;
  node.host.onPoint = (point, when) => {
    if (when !== "before" || node.starts === starts || !point.startsWith("run systemctl show")) return;
    if (++looks === 5) node.host.kill();
  };
  await expect(converge(node.environment(spec))).rejects.toThrow("the process was killed");
  expect(node.starts - starts).toBe(1);
  node.host.revive();
  await converge(node.environment(spec));
  expect(node.starts - starts).toBe(1);
  expect(node.served).toHaveLength(1);
});
