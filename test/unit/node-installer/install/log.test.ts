import { expect, test } from "vitest";
import { logPath } from "../../../../node-installer/host/files.ts";
import { createLog, largestLog } from "../../../../node-installer/install/log.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";

test("a log that has grown large is renamed, and its lines stay readable", async () => {
  const earlier = `${"x".repeat(largestLog)}\n`;
  const host = new MemoryHost({ files: { [logPath]: earlier, [`${logPath}.1`]: "oldest\n" } });
  const log = createLog(host, "workers", () => undefined);
  log.keep();
  log.info("step", { step: "gate" });
  log.warn("planned-anew");
  await log.flush();
  expect(host.text(`${logPath}.1`)).toBe(earlier);
  const lines = (host.text(logPath) ?? "").trim().split("\n");
  expect(lines.map((line) => JSON.parse(line).event)).toEqual(["step", "planned-anew"]);
});

test("nothing is written before something is changed, and a full disk stops nothing", async () => {
  const host = new MemoryHost();
  const log = createLog(host, "workers", () => undefined);
  log.info("converged");
  await log.flush();
  expect(host.text(logPath)).toBeUndefined();
  host.onPoint = (point) => {
    if (point.startsWith("append")) throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
  };
  log.keep();
  await expect(log.flush()).resolves.toBeUndefined();
});
