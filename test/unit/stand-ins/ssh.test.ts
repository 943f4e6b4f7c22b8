import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { commandProvider } from "../../stand-ins/command/provider.ts";
import { sshCommand } from "../../stand-ins/command/ssh.ts";
import type { Log } from "../../stand-ins/plugin.ts";
import type { Properties } from "../../stand-ins/values.ts";

const option = (words: string[], name: string) =>
  words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1);

describe("a connection", () => {
  test("with a host key accepts only that key", async () => {
    const ssh = await sshCommand({ host: "h.test", port: 2222, hostKey: "ssh-ed25519 AAAA comment" }, {});
    expect(option(ssh.words, "StrictHostKeyChecking")).toBe("yes");
    expect(option(ssh.words, "HostKeyAlgorithms")).toBe("ssh-ed25519");
    expect(await readFile(option(ssh.words, "UserKnownHostsFile") ?? "", "utf8")).toContain(
      "[h.test]:2222 ssh-ed25519 AAAA\n",
    );
    await ssh.cleanUp();
    await expect(stat(option(ssh.words, "UserKnownHostsFile") ?? "")).rejects.toThrow("ENOENT");
  });

  test("without one accepts every key, as the official plugin does", async () => {
    const ssh = await sshCommand({ host: "h.test" }, {});
    expect(option(ssh.words, "StrictHostKeyChecking")).toBe("no");
    await ssh.cleanUp();
  });

  test("keeps its private key readable by its owner only", async () => {
    const ssh = await sshCommand({ host: "h.test", privateKey: "KEY" }, {});
    const file = option(ssh.words, "IdentityFile") ?? "";
    expect([(await stat(file)).mode & 0o777, await readFile(file, "utf8")]).toEqual([0o600, "KEY\n"]);
    await ssh.cleanUp();
  });

  test("refuses what this stand-in does not do", async () => {
    await expect(sshCommand({ host: "h", password: "p" }, {})).rejects.toThrow("connection.password is not supported");
  });
});

describe("a remote command", () => {
  let directory: string;
  const path = process.env.PATH;
  const said: string[] = [];
  const log: Log = { info() {}, warn() {}, error() {}, status: (line) => void said.push(line) };
  const about = { urn: "", type: "command:remote:Command", name: "it", log };

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "contrast-ssh-"));
    // Stands in for the client: prints where it connects to, and runs the command here.
    const client = join(directory, "ssh");
    await writeFile(client, '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\necho "on $2"\nexec sh -c "$3"\n');
    await chmod(client, 0o755);
    process.env.PATH = `${directory}:${path}`;
  });
  afterEach(async () => {
    process.env.PATH = path;
    await rm(directory, { recursive: true, force: true });
  });

  test("runs there with its input and environment, streams its lines and fails with its output", async () => {
    const inputs: Properties = {
      connection: { host: "node.test" },
      create: "cat; echo; echo $A",
      stdin: "input",
      environment: { A: "b" },
    };
    const created = await commandProvider.create({ ...about, inputs, preview: false, timeout: 0 });
    expect(created.state).toMatchObject({ stdout: "on node.test\ninput\nb", stderr: "" });
    expect(said).toEqual(["on node.test", "input", "b"]);
    const failing = { ...inputs, create: "echo why >&2; exit 3" };
    await expect(commandProvider.create({ ...about, inputs: failing, preview: false, timeout: 0 })).rejects.toThrow(
      'exit status 3: running "echo why >&2; exit 3":\non node.test\nwhy',
    );
  });

  test("has a secret connection, which does not make its output secret", async () => {
    const news: Properties = { connection: { host: "node.test" }, create: "true" };
    const { inputs, failures } = await commandProvider.check({
      ...about,
      news,
      olds: {},
      randomSeed: new Uint8Array(),
    });
    expect(failures).toEqual([]);
    const { state } = await commandProvider.create({ ...about, inputs, preview: false, timeout: 0 });
    expect(state.stdout).toBe("on node.test");
    expect(state.connection).toMatchObject({ value: { host: "node.test" } });
  });
});
