import { afterEach, beforeEach, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { planFor } from "../../../../node-installer/install/dry-run.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { refusalOf } from "./outcomes.ts";

// What a plan finds out before anything is changed, and an installation before its node takes a turn.

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

const spec = () => node.spec([node.runtime("00000001")]);
const plan = async (asked = true) => await planFor(node.host, node.daemon(spec()), spec(), asked);

test("the node's containerd is asked about the new file, and only a candidate in /run is written for it", async () => {
  const before = node.host.tree();
  const written: string[] = [];
  node.host.onPoint = (point, when) => {
    if (when === "before" && point.startsWith("write ")) written.push(point);
  };
  await plan();
  expect(written).toEqual([expect.stringMatching(/^write \/run\/\.config\.toml\.contrast-runtime-plan-\d+$/)]);
  expect(node.host.tree()).toEqual(before);
  node.refuses = (text) => (text.includes("pod_annotations") ? "unknown key pod_annotations" : undefined);
  await expect(plan()).rejects.toThrow(/does not load it: containerd: \/etc\/containerd\/config\.toml: unknown key/);
  await expect(plan(false)).resolves.toMatchObject({ notices: [] });
  expect(node.host.tree()).toEqual(before);
});

test("relative imports are those of the file, not of the candidate", async () => {
  node.host.put(configPath, `imports = ["conf.d/*.toml"]\n${adminsFile}`);
  node.host.put("/etc/containerd/conf.d/a.toml", "version = 3\n");
  const asked: string[] = [];
  node.refuses = (text) => {
    if (text.includes("contrast-cc")) asked.push(text);
    return undefined;
  };
  await plan();
  expect(asked).toEqual([expect.stringContaining('"/etc/containerd/conf.d/a.toml"')]);
});

test("a plan goes on where no candidate can be written", async () => {
  const write = node.host.createFile.bind(node.host);
  node.host.createFile = async (path, ...rest) => {
    if (path.startsWith("/run/")) throw Object.assign(new Error("EACCES"), { code: "EACCES" });
    await write(path, ...rest);
  };
  expect((await plan()).plan.edit).toBe(true);
});

const mountinfo = (path: string) => `22 1 8:1 / / rw - ext4 /dev/sda rw\n40 22 8:1 /x ${path} rw - ext4 /dev/sda rw\n`;

test.each<[string, string, () => void, RegExp]>([
  [
    "a mount point",
    "configuration-mounted",
    () => node.host.programs.set("cat", () => ({ stdout: mountinfo(configPath) })),
    /is a mount point of its own.*Mount its directory/,
  ],
  [
    "immutable",
    "configuration-immutable",
    () => node.host.programs.set("lsattr", ([, path]) => ({ stdout: `----i---------e------- ${path}\n` })),
    /\/etc\/containerd\/config\.toml has the attribute i \(immutable\).*chattr -i \/etc\/containerd\/config\.toml\./,
  ],
  [
    "in a directory whose entries must stay",
    "configuration-immutable",
    () =>
      node.host.programs.set("lsattr", ([, path]) => ({
        stdout: `${path === "/etc/containerd" ? "-----a" : "------"}--------e------- ${path}\n`,
      })),
    /\/etc\/containerd has the attribute a .*chattr -a \/etc\/containerd\./,
  ],
])("a file that is %s is found by both, before a turn is taken", async (_, code, make, message) => {
  make();
  expect(await refusalOf(plan(false))).toBe(code);
  await expect(plan()).rejects.toThrow(message);
  const { host } = node;
  const before = host.text(configPath);
  expect(await refusalOf(converge(node.environment(spec())))).toBe(code);
  expect([host.text(configPath), node.starts]).toEqual([before, 1]);
});

test("a file on another mount, and one with other attributes, are replaced", async () => {
  node.host.programs.set("cat", () => ({ stdout: mountinfo("/etc") }));
  node.host.programs.set("lsattr", ([, path]) => ({ stdout: `--------------e------- ${path}\n` }));
  expect(await converge(node.environment(spec()))).toMatchObject({ changed: true });
});
