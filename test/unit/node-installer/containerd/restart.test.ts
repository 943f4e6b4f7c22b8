import { describe, expect, test } from "vitest";
import { restartUnit, unitState } from "../../../../node-installer/containerd/restart.ts";
import { nodeWith } from "./fake-daemon.ts";

describe("restart", () => {
  test("once, and the start limit of a failed unit is reset first", async () => {
    for (const [active, expected] of [
      ["active", ["restart"]],
      ["failed", ["reset-failed", "restart"]],
    ] as const) {
      const { host, located } = await nodeWith({ unit: { active, sub: "x", restarts: 0, invocation: "a" } });
      await restartUnit(host, located);
      const verbs = host.points
        .filter((point) => point.startsWith("run systemctl "))
        .map((point) => point.split(" ")[2]);
      expect(verbs.filter((verb) => verb !== "show" && verb !== "is-active")).toEqual(expected);
    }
  });

  test("not if the distribution does it", async () => {
    const { host, located } = await nodeWith();
    host.points.length = 0;
    await restartUnit(host, { ...located, restart: "itself" });
    expect(host.points).toEqual([]);
  });

  test("the state of a unit", async () => {
    const { host } = await nodeWith({ unit: { active: "active", sub: "running", restarts: 3, invocation: "abc" } });
    expect(await unitState(host, "containerd.service")).toEqual({
      active: "active",
      sub: "running",
      result: "success",
      restarts: 3,
      invocation: "abc",
    });
  });
});
