import { matchDefaults } from "./policy.ts";

/**
 * What makes a pod that says `name` a pod of `handler`, whose RuntimeClass has the handler's name. Kubernetes serves
 * MutatingAdmissionPolicy as v1 from 1.36 on.
 *
 * The admission plugin RuntimeClass runs before policies. It finds the class `name`, which therefore adds nothing, and runs
 * again after the change: overhead, node selector and tolerations are those of the handler's class.
 */
export function classResolution(name: string, handler: string) {
  const apiVersion = "admissionregistration.k8s.io/v1" as const;
  const metadata = { name };
  const common = {
    failurePolicy: "Fail",
    matchConstraints: {
      resourceRules: [
        { apiGroups: [""], apiVersions: ["v1"], resources: ["pods"], operations: ["CREATE"], scope: "*" },
      ],
      ...matchDefaults,
    },
    matchConditions: [{ name: "class", expression: `object.spec.?runtimeClassName.orValue('') == '${name}'` }],
  };
  return {
    policy: {
      ...{ apiVersion, kind: "MutatingAdmissionPolicy" as const, metadata },
      spec: {
        ...common,
        reinvocationPolicy: "IfNeeded",
        variables: [{ name: "handler", expression: `'${handler}'` }],
        mutations: [
          {
            // Not ApplyConfiguration, which merges typed lists and refuses pods with, say, a variable that is set twice.
            patchType: "JSONPatch",
            jsonPatch: {
              expression: "[JSONPatch{op: 'replace', path: '/spec/runtimeClassName', value: variables.handler}]",
            },
          },
        ],
      },
    },
    binding: {
      ...{ apiVersion, kind: "MutatingAdmissionPolicyBinding" as const, metadata },
      spec: { policyName: name },
    },
    // A pod that got the name from a webhook or a later policy is not looked at again, and would wait for ever.
    refusal: {
      ...{ apiVersion, kind: "ValidatingAdmissionPolicy" as const, metadata },
      spec: {
        ...common,
        validations: [
          {
            expression: "false",
            message:
              `RuntimeClass ${name} stands for a handler that is written in its place when a pod is admitted. Something wrote ` +
              "it into this pod too late for that: let it write the handler's own name.",
            reason: "Forbidden",
          },
        ],
      },
    },
    refusalBinding: {
      ...{ apiVersion, kind: "ValidatingAdmissionPolicyBinding" as const, metadata },
      spec: { policyName: name, validationActions: ["Deny"] },
    },
  };
}
