import { PolicyPack } from "@pulumi/policy";
import { rules } from "./rules.ts";

new PolicyPack("contrast-runtime", {
  enforcementLevel: "mandatory",
  policies: rules.map(({ name, description, check }) => ({
    name,
    description,
    validateResource: ({ type, name: resource, urn, props }, reportViolation) => {
      for (const sentence of check({ type, name: resource, urn, props })) reportViolation(sentence);
    },
  })),
});
