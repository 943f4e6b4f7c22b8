import type { GroupPart } from "./group-part.ts";
import { groupRules } from "./group-rules.ts";
import type { Mistake } from "./mistakes.ts";
import { nodeRules } from "./node-rules.ts";
import { checkOverlap } from "./overlap.ts";

/** All mistakes within and between groups, whoever lists them; between their runtimes: see runtime-rules.ts. */
export const checkGroups = (groups: readonly GroupPart[]): Mistake[] => [
  ...groups.flatMap((group) => [...nodeRules, ...groupRules].flatMap((rule) => [...rule(group)])),
  ...checkOverlap(groups),
];
