/** The API server's own, so that refreshes and server-side applies see no difference. */
export const matchDefaults = { matchPolicy: "Equivalent", namespaceSelector: {}, objectSelector: {} };

export interface PolicyOptions {
  name: string;
  /** The user that the policy is about; everybody else passes. */
  user: string;
  rule: { apiGroup: string; resource: string; operations: ("CREATE" | "UPDATE" | "DELETE")[] };
  /** CEL expressions by name; each may use those before it. */
  variables: Record<string, string>;
  validations: { expression: string; message: string }[];
}

/** A ValidatingAdmissionPolicy that denies, and the binding that switches it on for the whole cluster. */
export function admissionPolicy({ name, user, rule, variables, validations }: PolicyOptions) {
  const apiVersion = "admissionregistration.k8s.io/v1" as const;
  return {
    policy: {
      apiVersion,
      kind: "ValidatingAdmissionPolicy" as const,
      metadata: { name },
      spec: {
        failurePolicy: "Fail",
        matchConstraints: {
          resourceRules: [
            {
              apiGroups: [rule.apiGroup],
              apiVersions: ["v1"],
              resources: [rule.resource],
              operations: rule.operations,
              scope: "*",
            },
          ],
          ...matchDefaults,
        },
        matchConditions: [{ name: "installer", expression: `request.userInfo.username == '${user}'` }],
        variables: Object.entries(variables).map(([variable, expression]) => ({ name: variable, expression })),
        validations: validations.map((validation) => ({ ...validation, reason: "Forbidden" })),
      },
    },
    binding: {
      apiVersion,
      kind: "ValidatingAdmissionPolicyBinding" as const,
      metadata: { name },
      spec: { policyName: name, validationActions: ["Deny"] },
    },
  };
}
