import { expect, test } from "vitest";
import { opensSalt } from "../../../../tools/engine/passphrase.ts";

test("a stack's salt is opened by its passphrase alone", async () => {
  // Written by the engine for the empty passphrase.
  const salt = "v1:UnnuDR91oIw=:v1:v+RLPIaJ9KergIh/:GyzJUU3KBhS3c/vQJsY5GK0+xhIh2A==";
  expect(await opensSalt(salt, "")).toBe(true);
  expect(await opensSalt(salt, "another")).toBe(false);
  expect(await opensSalt("v1:", "")).toBe(false);
});
