import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

let node: MemoryNode;
beforeEach(() => {
  node = new MemoryNode();
});
afterEach(() => node.close());

describe("a file with more than mode and owner", () => {
  const staged = "/etc/containerd/.config.toml.contrast-staged";
  let said: string[];
  const program = (name: string, code = 0) =>
    node.host.programs.set(name, (args) => {
      said.push([name, ...args].join(" "));
      return { code, stderr: code === 0 ? "" : "Operation not permitted" };
    });
  const withList = () =>
    node.host.programs.set("ls", () => ({ code: 0, stdout: "-rw-r-----+ 1 root root 9 config.toml\n" }));
  const install = () => converge(node.environment(node.spec([node.runtime("00000001")])));
  beforeEach(() => {
    said = [];
    for (const name of ["chcon", "cp", "chown"]) program(name);
  });

  test("passes its SELinux label on to its backup and its replacement", async () => {
    node.host.put("/sys/fs/selinux/enforce", "1");
    await install();
    // Tried before anything is copied.
    expect(said).toEqual([
      `chcon --reference=${configPath} ${staged}`,
      expect.stringMatching(`^chcon --reference=${configPath} ${configPath}\\..*\\.bak$`),
      `chcon --reference=${configPath} ${staged}`,
    ]);
  });

  test("passes its access control list on to them before they are given to another user", async () => {
    node.host.put(configPath, adminsFile, { mode: 0o640, uid: 1234, gid: 2345 });
    withList();
    await install();
    expect(said.slice(-2)).toEqual([
      `cp --attributes-only --preserve=mode ${configPath} ${staged}`,
      `chown 1234:2345 ${staged}`,
    ]);
  });

  test.each([
    ["SELinux label", "chcon", () => node.host.put("/sys/fs/selinux/enforce", "1")],
    ["access control list", "cp", withList],
  ])("is not replaced if its %s cannot be kept", async (what, name, prepare) => {
    prepare();
    program(name, 1);
    await expect(install()).rejects.toThrow(`The ${what} of ${configPath} could not be given`);
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.starts).toBe(1);
    expect(Object.keys(node.host.tree()).filter((path) => /\.bak|staged/.test(path))).toEqual([]);
  });
});
