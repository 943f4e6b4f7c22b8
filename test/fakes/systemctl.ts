import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

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
