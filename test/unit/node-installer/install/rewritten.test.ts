import { parse, stringify } from "smol-toml";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { guardsFilesOn, refusalOf } from "./outcomes.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

const text = () => node.host.text(configPath) ?? "";
/** As a tool writes a file that it has read: without comments, and with a runtime of its own. */
const written = (from: string): string =>
  `${stringify(parse(from))}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
`;
const writtenByOthers = written(adminsFile);
const rewrite = () => node.host.put(configPath, written(text()));
/** Written anew by another program once, right after our rename. */
const rewriteAfterOurs = () => {
  let done = false;
  node.host.onPoint = (point, when) => {
    if (done || when !== "after" || point !== `rename ${configPath}`) return;
    done = true;
    rewrite();
  };
};
const uninstall = (spec: InstallSpec) => converge(node.environment({ ...spec, runtimes: [] }), { refuseBlocked: true });
const withoutEmptyTables = (one: string): string =>
  one.replaceAll(/\[[^\n]*\]\n+(?=\[|$)/g, "").replaceAll(/\n+/g, "\n");

describe("a file that another program wrote anew", () => {
  let spec: InstallSpec;
  beforeEach(async () => {
    spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
    rewrite();
    node.start();
  });

  test("needs nothing as long as it holds what is wanted", async () => {
    const { starts } = node;
    const before = text();
    expect(before).not.toContain("contrast-runtime");
    expect(await converge(node.environment(spec))).toMatchObject({ changed: false, handlers: node.served });
    expect([text(), node.starts]).toEqual([before, starts]);
  });

  test("is uninstalled from, with one restart", async () => {
    const { starts } = node;
    await uninstall(spec);
    expect(node.starts).toBe(starts + 1);
    expect(node.served).toEqual([]);
    expect(withoutEmptyTables(text())).toBe(withoutEmptyTables(writtenByOthers));
    expect(node.host.nodes.has("/opt/edgeless")).toBe(false);
    expect(node.host.nodes.has("/var/lib/contrast-runtime")).toBe(false);
  });

  test("gets another runtime in the place of the one in it", async () => {
    const next = node.spec([node.runtime("00000002")]);
    await converge(node.environment(next));
    expect(node.served).toEqual(next.runtimes.map(({ handler }) => handler));
    expect(text()).not.toContain("00000001");
    expect(text()).toContain("runtimes.nvidia]");
  });

  test("is recognized also without a journal", async () => {
    node.host.nodes.delete(journalPath);
    const { starts } = node;
    await converge(node.environment(spec));
    expect(node.starts).toBe(starts);
    expect(JSON.parse(node.host.text(journalPath) ?? "").runtimes).toHaveLength(1);
    await uninstall(spec);
    expect(node.served).toEqual([]);
    expect(text()).toContain("runtimes.nvidia]");
  });

  test("with a setting of ours changed is repaired, and the log says which", async () => {
    node.host.put(configPath, text().replace("privileged_without_host_devices = true", ""));
    node.start();
    await converge(node.environment(spec));
    expect(node.log.join("")).toMatch(/"event":"drift".*privileged_without_host_devices/);
    expect((await converge(node.environment(spec))).handlers).toEqual(node.served);
    expect(text()).toContain("runtimes.nvidia]");
  });
});

describe("another program that writes the file anew between our edit and our commit", () => {
  const spec = () => node.spec([node.runtime("00000001")]);

  test("costs nothing if our runtime works", async () => {
    rewriteAfterOurs();
    await converge(node.environment(spec()));
    expect(node.served).toHaveLength(1);
    expect(text()).toContain("runtimes.nvidia]");
    const { starts } = node;
    await converge(node.environment(spec()));
    expect(node.starts).toBe(starts);
  });

  test("loses nothing if our runtime breaks the CRI: our tables go, its own stay", async () => {
    const bad = spec();
    node.breaks.add(bad.runtimes[0]?.handler ?? "");
    rewriteAfterOurs();
    await expect(converge(node.environment(bad))).rejects.toBeInstanceOf(RolledBack);
    expect(node.served).toEqual([]);
    expect(withoutEmptyTables(text())).toBe(withoutEmptyTables(writtenByOthers));
    expect(guardsFilesOn(node)).toEqual([]);
  });

  const killAfterRewrite = async (bad: InstallSpec) => {
    node.breaks.add(bad.runtimes[0]?.handler ?? "");
    node.host.onPoint = (point, when) => {
      if (when !== "after" || point !== "run systemctl restart containerd.service") return;
      rewrite();
      node.start();
      node.host.kill();
    };
    await expect(converge(node.environment(bad))).rejects.toThrow("the process was killed");
    node.host.onPoint = () => undefined;
    expect(node.served).toBeUndefined();
  };

  test("the same if the installer is killed, by its next run", async () => {
    const bad = spec();
    await killAfterRewrite(bad);
    node.host.revive();
    await converge(node.environment(bad)).catch(() => undefined);
    expect(node.served).toEqual([]);
    expect(withoutEmptyTables(text())).toBe(withoutEmptyTables(writtenByOthers));
  });

  test("the same if the installer never runs again, by the guard", async () => {
    const bad = spec();
    await killAfterRewrite(bad);
    node.runGuard();
    expect(node.served).toEqual([]);
    expect(withoutEmptyTables(text())).toBe(withoutEmptyTables(writtenByOthers));
    node.host.revive();
    await converge(node.environment(bad)).catch(() => undefined);
    expect(node.served).toEqual([]);
    expect(guardsFilesOn(node)).toEqual([]);
  });
});

describe("a CRI that is down", () => {
  let spec: InstallSpec;
  beforeEach(async () => {
    spec = node.spec([node.runtime("00000001")]);
    await converge(node.environment(spec));
  });
  const handler = () => spec.runtimes[0]?.handler ?? "";

  test("because of our tables comes back when they are removed", async () => {
    node.breaks.add(handler());
    node.start();
    expect(node.served).toBeUndefined();
    await uninstall(spec);
    expect(node.served).toEqual([]);
    expect(text()).toBe(adminsFile);
  });

  test("keeps a runtime whose processes run, and names them", async () => {
    node.breaks.add(handler());
    node.start();
    node.host.running.push({ pid: 7, name: "shim", program: `/opt/edgeless/${handler()}/bin/shim` });
    const before = text();
    expect(await refusalOf(uninstall(spec))).toBe("runtime-in-use");
    expect(await refusalOf(converge(node.environment({ ...spec, runtimes: [] })))).toBe("cri-broken-before");
    expect(text()).toBe(before);
  });

  test("for another reason does not keep our runtimes on the node", async () => {
    node.refuses = (one) => (one.includes("# broken") ? "broken by somebody else" : undefined);
    node.host.put(configPath, `${text()}# broken\n`);
    node.start();
    expect(node.served).toBeUndefined();
    await uninstall(spec);
    expect(text()).toBe(`${adminsFile}# broken\n`);
    expect(node.host.nodes.has("/opt/edgeless")).toBe(false);
    expect(node.log.join("")).toContain("still-not-serving");
  });

  test("for another reason is left alone by an installation", async () => {
    node.refuses = (one) => (one.includes("# broken") ? "broken by somebody else" : undefined);
    node.host.put(configPath, `${text()}# broken\n`);
    node.start();
    const both = node.spec([...spec.runtimes, node.runtime("00000002")]);
    const before = text();
    const { starts } = node;
    expect(["cri-broken-before", "configuration-broken-before"]).toContain(
      await refusalOf(converge(node.environment(both))),
    );
    expect([text(), node.starts]).toEqual([before, starts]);
  });

  test("because containerd does not load what we wrote is repaired by an installation", async () => {
    node.refuses = (one) => (/0{7}1\]\nruntime_type = "old"/.test(one) ? "not with this version" : undefined);
    node.host.put(configPath, text().replace(/(0{7}1\]\nruntime_type = )"[^"]*"/, '$1"old"'));
    node.start();
    expect(node.served).toBeUndefined();
    await converge(node.environment(spec));
    expect(node.served).toEqual([handler()]);
  });
});
