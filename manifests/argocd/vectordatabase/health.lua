-- kstatus compatible: conditions with observedGeneration.
local hs = { status = "Progressing", message = "Waiting for the operator" }
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being deleted"
  return hs
end
if obj.spec ~= nil and obj.spec.paused then
  return { status = "Suspended", message = "Paused" }
end
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end
if is("Stalled") then
  return { status = "Degraded", message = conditions["Stalled"].message }
end
if is("Hibernated") then
  return { status = "Suspended", message = conditions["Hibernated"].message }
end
if is("Degraded") then
  return { status = "Degraded", message = conditions["Degraded"].message }
end
if is("Ready") then
  local message = conditions["Ready"].message
  if conditions["Secured"] ~= nil and not is("Secured") then
    message = message .. "; not secured: " .. conditions["Secured"].message
  end
  return { status = "Healthy", message = message }
end
if conditions["Ready"] ~= nil then
  hs.message = conditions["Ready"].reason .. ": " .. conditions["Ready"].message
end
return hs
