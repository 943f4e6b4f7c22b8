import { expect, test, vi } from "vitest";
import { check, run } from "../../../../tools/process/run.ts";

test("an exit code is a result; a missing program is reported in a sentence", async () => {
  expect(await run("sh", ["-c", "cat; echo no >&2; exit 3"], { input: "yes" })).toEqual({
    code: 3,
    stdout: "yes",
    stderr: "no\n",
  });
  await expect(run("no-such-program", [])).rejects.toThrow(/^no-such-program is not installed\.$/);
  await expect(check("sh", ["-c", "echo why >&2; exit 3"])).rejects.toThrow(/^sh -c .* failed \(exit 3\):\n {2}why$/);
});

test("a program that a signal ended is said to have been, with its time limit if it had one", async () => {
  await expect(check("sh", ["-c", "echo why; kill -9 $$"])).rejects.toThrow(
    /^sh -c .* was ended by SIGKILL:\n {2}why$/,
  );
  await expect(check("sleep", ["60"], { timeoutMs: 50 })).rejects.toThrow(
    /^sleep 60 was ended by SIGKILL \(its time limit is 0\.05 s\):/,
  );
});

test("once something failed, what runs is ended and nothing else is started", async () => {
  vi.resetModules();
  const { endPrograms, run } = await import("../../../../tools/process/run.ts");
  const waiting = run("sleep", ["60"]);
  endPrograms();
  expect((await waiting).code).not.toBe(0);
  await expect(run("true", [])).rejects.toThrow("true is not started: another step failed.");
});
