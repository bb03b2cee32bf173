-- kstatus compatible: conditions with observedGeneration.
local hs = { status = "Progressing", message = "Waiting for the operator" }
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being deleted"
  return hs
end
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return hs
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    return { status = "Degraded", message = condition.message }
  end
  if condition.type == "Ready" then
    if condition.status == "True" then
      hs = { status = "Healthy", message = "As declared" }
    else
      hs.message = condition.reason .. ": " .. condition.message
    end
  end
end
return hs
