import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MemoryHost } from "./memory-host.ts";

/** A `systemctl` that only records its arguments, first in the PATH of what is run with it. */
export function fakeSystemctl(directory: string, exitCode = 0) {
  const calls = join(directory, "systemctl-calls");
  mkdirSync(directory, { recursive: true });
  writeFileSync(calls, "");
  writeFileSync(join(directory, "systemctl"), `#!/bin/sh\necho "$*" >>'${calls}'\nexit ${exitCode}\n`, { mode: 0o755 });
  return {
    run(command: string, args: string[]) {
      const env = { ...process.env, PATH: `${directory}:${process.env.PATH}` };
      const { status, stdout, stderr } = spawnSync(command, args, { env, encoding: "utf8" });
      return { code: status, stdout, stderr };
    },
    calls: () => readFileSync(calls, "utf8").split("\n").filter(Boolean),
  };
}

/** What `systemctl enable` and `disable` do with units of the guard's kinds: links, which nothing syncs. */
export function enableUnits([verb, ...args]: readonly string[], host: MemoryHost): void {
  if (verb !== "enable" && verb !== "disable") return;
  for (const unit of args.filter((arg) => !arg.startsWith("-"))) {
    const target = unit.endsWith(".timer") ? "timers" : "multi-user";
    const link = `/etc/systemd/system/${target}.target.wants/${unit}`;
    if (verb === "enable") host.link(link, `/etc/systemd/system/${unit}`);
    else host.nodes.delete(link);
  }
}
