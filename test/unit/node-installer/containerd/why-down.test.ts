import { expect, test } from "vitest";
import { CriError } from "../../../../node-installer/containerd/cri-error.ts";
import { whyDown } from "../../../../node-installer/containerd/why-down.ts";
import { possibleWriters } from "../../../../node-installer/containerd/writers.ts";
import { nodeWith } from "./fake-daemon.ts";
import { v2 } from "./nodes.ts";

const config = "/etc/containerd/config.toml";
const dead = () => nodeWith({ error: new CriError("its CRI plugin is not running", true) });

test("a dead CRI is explained by the file that does not load", async () => {
  const { host, located } = await dead();
  const said = "expected containerd config version equal to or less than `3`, got `4`";
  host.programs.set("containerd", () => ({
    code: 1,
    stderr: `containerd: failed to load TOML from 99.toml: ${said}\n`,
  }));
  expect(await whyDown(host, located)).toBe(`containerd: failed to load TOML from 99.toml: ${said}`);
  host.put(config, `imports = ["/nowhere.toml"]\n${v2}`);
  expect(await whyDown(host, located)).toMatch(/config\.toml imports \/nowhere\.toml, which is not there/);
});

test("else by what containerd said in the journal about its CRI plugin since it was started", async () => {
  const { host, located } = await dead();
  const line = (level: string, plugin: string, error: string) =>
    `time="x" level=${level} msg="failed to load plugin ${plugin}" error="${error}"\n`;
  host.programs.set("journalctl", (args) => ({
    stdout: args.includes("_SYSTEMD_INVOCATION_ID=a")
      ? line("warning", "io.containerd.grpc.v1.cri", 'config of \\"a\\" is wrong') +
        line("info", "io.containerd.grpc.v1.cri", "no") +
        line("warning", "io.containerd.snapshotter.v1.zfs", "no zfs")
      : "",
  }));
  expect(await whyDown(host, located)).toBe(
    'containerd.service\'s journal says failed to load plugin io.containerd.grpc.v1.cri: config of "a" is wrong',
  );
  host.programs.delete("journalctl");
  expect(await whyDown(host, located)).toBeUndefined();
});

test("who may write the file: the unit's commands, units that watch it, known programs; no more than was found", async () => {
  const { host, located } = await nodeWith();
  const lastWrite = /^\/etc\/containerd\/config\.toml was last written at \S+ and belongs to user 0$/;
  expect(await possibleWriters(host, located)).toEqual([expect.stringMatching(lastWrite)]);
  host.put(
    "/etc/systemd/system/containerd.service.d/a.conf",
    `[Service]\nExecStartPre=-/bin/cp /x ${config}\nExecStartPre=/sbin/modprobe overlay\n`,
  );
  host.put("/etc/systemd/system/golden.path", "[Path]\nPathModified=/etc/containerd/\n");
  host.put("/etc/systemd/system/other.path", "[Path]\nPathModified=/etc/other\n");
  host.put("/proc/12/comm", "puppet\n");
  host.put("/proc/13/comm", "bash\n");
  expect(await possibleWriters(host, located)).toEqual([
    `containerd.service has ExecStartPre=-/bin/cp /x ${config} (/etc/systemd/system/containerd.service.d/a.conf)`,
    "golden.path watches it (PathModified=/etc/containerd/ in /etc/systemd/system/golden.path)",
    "puppet runs on this node",
    expect.stringMatching(lastWrite),
  ]);
});
