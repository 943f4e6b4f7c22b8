import { availableParallelism } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { cacheDirectory } from "./tools/programs/cache.ts";

const withEngines = {
  globalSetup: "test/global-setup.ts",
  testTimeout: 900_000,
  env: {
    // Engines, API servers and kubectl are Go programs that end soon: they hold their garbage instead of looking for it.
    GOGC: "400",
    // Commands start hundreds of times: they compile once.
    NODE_COMPILE_CACHE: join(cacheDirectory(), "node-compile-cache"),
  },
};
const onClusters = { ...withEngines, hookTimeout: 2_400_000 };

/** Vitest leaves a core to itself, which of two is half: what waits for processes and clocks leaves enough to it. */
const maxWorkers = Math.max(3, availableParallelism() - 1);
const unit = { testTimeout: 60_000, hookTimeout: 60_000, maxWorkers };

/** Unit tests of what only a Linux host does: they start sh, flock or tar, and read modes, links, pipes and /proc. */
const onHost = [
  "test/unit/components/{bare-metal-scripts,host-check,injection}.test.ts",
  "test/unit/node-installer/host/**/*.test.ts",
  "test/unit/node-installer/{commands/commands,install/faults}.test.ts",
  "test/unit/review/{workflows,stacks-workflows,manifests-workflows}.test.ts",
  "test/unit/stand-ins/ssh.test.ts",
  "test/unit/tools/**/*.test.ts",
];

/**
 * The layers of the test command, cheapest first. The unit layer is two projects: `unit` runs on every platform, `host`
 * needs Linux. Engine tests are chains of processes that wait for each other: three files at a time keep two cores busy.
 * Cluster tests mostly wait for nodes: several files run at a time, each with its own cluster; the file that compares the
 * machine before and after runs alone. Time limits are only there to end what hangs. How long each file took is remembered
 * outside the clone: the longest begin first, so that none of them ends alone.
 */
export default defineConfig({
  cacheDir: join(cacheDirectory(), "vitest"),
  test: {
    reporters: ["default"],
    projects: [
      { test: { ...unit, name: "unit", include: ["test/unit/**/*.test.ts"], exclude: onHost } },
      { test: { ...unit, name: "host", include: onHost } },
      {
        test: {
          ...withEngines,
          name: "engine",
          include: ["test/engine/**/*.test.ts"],
          hookTimeout: 1_800_000,
          sequence: { groupOrder: 1 },
          maxWorkers: 3,
        },
      },
      {
        test: {
          ...onClusters,
          name: "machine",
          include: ["test/cluster/local-cluster.test.ts"],
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          ...onClusters,
          name: "cluster",
          include: ["test/cluster/**/*.test.ts"],
          exclude: ["test/cluster/local-cluster.test.ts"],
          sequence: { groupOrder: 3 },
          maxWorkers: 3,
        },
      },
    ],
  },
});
