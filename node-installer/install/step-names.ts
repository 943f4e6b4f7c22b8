/** The steps of an installation, in their order. Status, metrics, the log and codes of failures name them so. */
export const stepNames = [
  "check-host",
  "validate",
  "place-payload",
  "write-kata-configuration",
  "take-ticket",
  "cordon",
  "back-up",
  "edit",
  "restart",
  "gate",
  "commit",
  "record",
  "clean-up",
] as const;
export type StepName = (typeof stepNames)[number];
