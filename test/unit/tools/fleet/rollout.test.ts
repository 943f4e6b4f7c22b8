import { expect, test } from "vitest";
import { refuseOtherContent } from "../../../../tools/fleet/rollout.ts";
import { fleet, hash } from "./fleet-fixture.ts";

test("a ConfigMap of the wanted name with other content is not waited for; one that is still to be replaced is", () => {
  const other = { specHash: "b".repeat(64) };
  expect(() => refuseOtherContent(fleet([], other), hash)).toThrow(
    "has other content than the stack gave it: an unfinished uninstallation emptied it, or somebody else changed it. An update with --refresh restores it.",
  );
  refuseOtherContent(fleet([], { ...other, configMap: "contrast-installer-metal-bbbbbbbb" }), hash);
  refuseOtherContent(fleet([]), hash);
});
