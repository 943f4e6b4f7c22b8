import { defineConfig } from "vitest/config";

const onClusters = { globalSetup: "test/global-setup.ts", testTimeout: 900_000, hookTimeout: 2_400_000 };

/**
 * The layers of the test command, cheapest first. Engine tests are chains of processes that wait for each other: three
 * files at a time keep two cores busy. Cluster tests mostly wait for nodes: several files run at a time, each with its own
 * cluster; the file that compares the machine before and after runs alone. Time limits are only there to end what hangs.
 */
export default defineConfig({
  test: {
    reporters: ["default"],
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 60_000 } },
      {
        test: {
          name: "engine",
          include: ["test/engine/**/*.test.ts"],
          globalSetup: "test/global-setup.ts",
          testTimeout: 300_000,
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
