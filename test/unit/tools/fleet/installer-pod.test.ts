import { expect, test } from "vitest";
import { installerPod } from "../../../../tools/fleet/observe.ts";

const container = { name: "installer", image: "i", imageID: "", ready: false, restartCount: 1 };
const problem = (state: object, lastState: object = {}) =>
  installerPod({
    metadata: { name: "p" },
    status: { phase: "Running", containerStatuses: [{ ...container, state, lastState }] },
  }).problem;
const ended = (reason: string) => ({ terminated: { exitCode: 255, reason } });
const running = { running: {} };

test("why a container does not run, or how it ended before, is the pod's problem", () => {
  expect(problem({ waiting: { reason: "ErrImagePull", message: "no such host" } })).toBe("ErrImagePull: no such host");
  expect(problem(ended("Error"))).toBe("Error");
  expect(problem(running, ended("OOMKilled"))).toBe("OOMKilled");
  expect(problem(running)).toBe("");
});

test.each(["Unknown", "ContainerStatusUnknown"])("%s, after the machine was down, explains nothing", (reason) => {
  expect(problem(running, ended(reason))).toBe("");
});
