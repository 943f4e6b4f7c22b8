import { PolicyPack } from "@pulumi/policy";
import { rules } from "./rules.ts";

new PolicyPack("contrast-runtime", {
  enforcementLevel: "mandatory",
  policies: rules.map(({ name, description, configSchema, check }) => ({
    name,
    description,
    ...(configSchema && { configSchema }),
    validateResource: ({ type, name: resource, urn, props, getConfig }, reportViolation) => {
      for (const sentence of check({ type, name: resource, urn, props }, getConfig())) reportViolation(sentence);
    },
  })),
});
